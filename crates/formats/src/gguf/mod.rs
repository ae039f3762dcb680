//! GGUF (versions 2 and 3), the files of llama.cpp: metadata and tensors, which may be quantised.

mod metadata;
mod reader;
mod tokenizer;
mod value;
mod write;

pub use metadata::Metadata;
pub use tokenizer::{GgufTokenizer, end_ids};
pub use value::{List, Value};
pub use write::write;

use crate::{FormatError, Tensors};
use std::path::Path;

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
}
