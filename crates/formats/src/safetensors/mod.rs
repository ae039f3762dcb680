//! Reads and writes safetensors: one file, or several with an index.
//!
//! The header is checked here rather than by the `safetensors` crate. That crate accepts a name
//! twice (the last wins) and shapes whose product overflows, and it keeps everything that a header
//! holds.

mod header;
mod index;
mod write;

pub use index::read_index;
pub use write::{write, write_model};

use crate::{FormatError, MOST_TENSORS, Tensors};
use std::{collections::BTreeMap, path::Path};

/// Name of the file of a model that is not split.
pub const WHOLE: &str = "model.safetensors";
/// Name of the index of a model that is split over several files.
pub const INDEX: &str = "model.safetensors.index.json";

/// Opens one file. Its tensors must lie side by side and end where the file ends.
pub fn open(path: &Path) -> Result<Tensors, FormatError> {
    Ok(Tensors::new(path, header::read(path)?))
}

/// Opens the files that an index (`model.safetensors.index.json`) names, in its folder.
pub fn open_sharded(index: &Path) -> Result<Tensors, FormatError> {
    let folder = index.parent().unwrap_or(Path::new(""));
    let mut tensors = BTreeMap::new();
    for (file, named) in index::read_index(index)? {
        let path = folder.join(&file);
        if !path.exists() {
            return Err(FormatError::MissingShard {
                index: index.to_path_buf(),
                file,
            });
        }
        let found = header::read(&path)?;
        if let Some(tensor) = named.into_iter().find(|name| !found.contains_key(name)) {
            return Err(FormatError::Missing { file: path, tensor });
        }
        if tensors.len() + found.len() > MOST_TENSORS {
            return Err(FormatError::Damaged {
                file: index.to_path_buf(),
                reason: format!("its files have more than {MOST_TENSORS} tensors"),
            });
        }
        for (name, entry) in found {
            if let Some(before) = tensors.insert(name.clone(), entry) {
                return Err(FormatError::Duplicate {
                    file: before.file.to_path_buf(),
                    tensor: name,
                });
            }
        }
    }
    Ok(Tensors::new(index, tensors))
}

/// Reads `__metadata__` of a file, which [`open`] does not keep; empty if there is none.
pub fn metadata(path: &Path) -> Result<BTreeMap<String, String>, FormatError> {
    header::metadata(path)
}
