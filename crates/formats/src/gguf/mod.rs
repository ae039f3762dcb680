//! GGUF (versions 2 and 3), the files of llama.cpp: metadata and tensors, which may be quantised.

mod file_type;
mod metadata;
mod reader;
mod tokenizer;
mod value;
mod write;

pub use file_type::{FileType, Shape};
pub use metadata::Metadata;
pub use tokenizer::{GgufTokenizer, end_ids};
pub use value::{List, Value};
pub use write::write;

use crate::{FormatError, TensorInfo, TensorOut, Tensors};
use std::{path::Path, sync::Arc};

/// Alignment of the elements, unless `general.alignment` says otherwise.
const ALIGNMENT: u64 = 32;
/// Largest number of dimensions of a tensor in the format.
const MOST_DIMENSIONS: u32 = 4;

/// An open GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// Metadata of the file.
    pub metadata: Metadata,
    /// Tensors, under the names that llama.cpp gives them.
    pub tensors: Tensors,
}

impl Gguf {
    /// Reads the header of the file at `path`. Nothing in it is trusted: every length is compared
    /// with the rest of the file before memory is allocated for it.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        reader::read(path)
    }

    /// What a reader will find in the file that [`write()`] makes of these; its tensors cannot be read.
    /// Tensors that cannot be written are left out.
    pub fn planned<E>(
        path: &Path,
        metadata: &[(&str, Value)],
        tensors: &[TensorOut<'_, E>],
    ) -> Self {
        let entries = metadata.iter();
        let entries = entries.map(|(key, value)| ((*key).to_owned(), value.clone()));
        let file: Arc<Path> = path.into();
        let described = tensors.iter().filter_map(|tensor| {
            let described = TensorInfo {
                file: file.clone(),
                encoding: tensor.encoding,
                shape: tensor.shape.clone(),
                start: 0,
                bytes: usize::try_from(tensor.size()?).ok()?,
            };
            Some((tensor.name.clone(), described))
        });
        Self {
            metadata: Metadata::new(path, entries.collect()),
            tensors: Tensors::new(path, described.collect()),
        }
    }
}
