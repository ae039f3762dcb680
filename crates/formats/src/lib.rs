//! Reads and writes the files of models: safetensors and GGUF, whole or not at all.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod diagnosis;
mod encoding;
mod error;
pub mod files;
pub mod gguf;
mod limits;
mod out;
pub mod safetensors;
mod tensors;

pub use encoding::Encoding;
pub use error::FormatError;
pub use limits::{LARGEST_HEADER, MOST_TENSORS};
pub use out::TensorOut;
pub use tensors::{TensorInfo, Tensors};
