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

/// Elements begin at multiples of it, unless `general.alignment` says otherwise.
const ALIGNMENT: u64 = 32;
/// Dimensions of a tensor in the format.
const MOST_DIMENSIONS: u32 = 4;

/// An open GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// What the file says besides its tensors.
    pub metadata: Metadata,
    /// Its tensors, under the names that llama.cpp gives them.
    pub tensors: Tensors,
}

impl Gguf {
    /// Reads the header of the file at `path`. Nothing in it is trusted: every length is held against
    /// what is left of the file before memory is taken for it.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        reader::read(path)
    }
}
