//! Reads safetensors: one file, or several with an index.
//!
//! The header is checked here rather than by the `safetensors` crate, which accepts a name twice
//! (the last wins) and shapes whose product overflows, and keeps all that a header holds. Files are
//! read, not mapped: truncating a mapped file under its reader kills the process.

mod header;
mod index;

use super::{Checkpoint, MOST_TENSORS, Stored, TensorInfo};
use crate::{ModelError, parts::HostScales};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};
use tightrope_device::DType;

/// What elements tensors may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elements {
    /// F32, BF16 and F16.
    Floats,
    /// These and U8, which only [`Safetensors::raw`] and [`Safetensors::bytes`] know of.
    FloatsAndBytes,
}

/// Tensors of one or several files.
#[derive(Debug)]
pub(crate) struct Safetensors {
    /// What was opened: the file, or the index.
    path: PathBuf,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: Arc<Path>,
    dtype: DType,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

impl Safetensors {
    /// One file.
    pub fn open(path: &Path, elements: Elements) -> Result<Self, ModelError> {
        Ok(Self {
            path: path.to_path_buf(),
            tensors: header::read(path, elements)?,
        })
    }

    /// The files that an index (`model.safetensors.index.json`) names, in the same folder.
    pub fn open_sharded(index: &Path, elements: Elements) -> Result<Self, ModelError> {
        let folder = index.parent().unwrap_or(Path::new(""));
        let mut tensors = BTreeMap::new();
        for (file, named) in index::read(index)? {
            let path = folder.join(&file);
            if !path.exists() {
                return Err(ModelError::MissingShard {
                    index: index.to_path_buf(),
                    file,
                });
            }
            let found = header::read(&path, elements)?;
            if let Some(tensor) = named.into_iter().find(|name| !found.contains_key(name)) {
                return Err(ModelError::Missing { file: path, tensor });
            }
            if tensors.len() + found.len() > MOST_TENSORS {
                return Err(ModelError::Damaged {
                    file: index.to_path_buf(),
                    reason: format!("its files have more than {MOST_TENSORS} tensors"),
                });
            }
            for (name, entry) in found {
                if let Some(before) = tensors.insert(name.clone(), entry) {
                    return Err(ModelError::Duplicate {
                        file: before.file.to_path_buf(),
                        tensor: name,
                    });
                }
            }
        }
        Ok(Self {
            path: index.to_path_buf(),
            tensors,
        })
    }

    /// Type and shape of a tensor.
    pub fn raw(&self, name: &str) -> Option<(DType, &[usize])> {
        let entry = self.tensors.get(name)?;
        Some((entry.dtype, &entry.shape))
    }

    /// The bytes of a tensor.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, ModelError> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(super::missing(self, name));
        };
        let io = || ModelError::io(&entry.file);
        let mut file = File::open(&entry.file).map_err(io())?;
        file.seek(SeekFrom::Start(entry.start)).map_err(io())?;
        let mut bytes = vec![0; entry.bytes];
        file.read_exact(&mut bytes).map_err(io())?;
        Ok(bytes)
    }
}

impl Checkpoint for Safetensors {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|entry| TensorInfo {
            stored: Stored::Float(entry.dtype),
            shape: entry.shape.clone(),
        })
    }

    fn file(&self, name: &str) -> &Path {
        self.tensors
            .get(name)
            .map_or(&self.path, |entry| &entry.file)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ModelError> {
        self.bytes(name)
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(entry) = self.tensors.remove(from) {
            self.tensors.insert(to.to_string(), entry);
        }
    }

    fn read_nf4(&self, _: &str) -> Result<Option<(Vec<u8>, HostScales)>, ModelError> {
        Ok(None)
    }
}
