//! Tensors that are to be written into a file.

use crate::{Encoding, FormatError};
use std::{fmt, path::Path};

/// A tensor to be written; `E` is the error of the function that returns its elements.
pub struct TensorOut<'a, E> {
    /// Name of the tensor.
    pub name: String,
    /// Encoding of its elements.
    pub encoding: Encoding,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Returns the elements, row-major, as little-endian bytes. It is called when the tensor is
    /// written, so that only one tensor is in memory at a time.
    pub bytes: Box<dyn FnOnce() -> Result<Vec<u8>, E> + 'a>,
}

impl<'a, E> TensorOut<'a, E> {
    /// A tensor with the elements that `bytes` returns.
    pub fn new(
        name: impl Into<String>,
        encoding: Encoding,
        shape: &[usize],
        bytes: impl FnOnce() -> Result<Vec<u8>, E> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            encoding,
            shape: shape.to_vec(),
            bytes: Box::new(bytes),
        }
    }

    /// Size in bytes in a file; `None` if it overflows, or if rows are not whole blocks.
    pub(crate) fn size(&self) -> Option<u64> {
        let shape: Vec<u64> = self.shape.iter().map(|&dim| dim as u64).collect();
        self.encoding.bytes(&shape)
    }

    /// Error that says that the file at `path` cannot hold this tensor.
    pub(crate) fn refused(&self, path: &Path) -> FormatError {
        let (encoding, shape) = (self.encoding, &self.shape);
        let reason = format!("shape {shape:?} of {encoding} cannot be written");
        damaged(path, &self.name, reason)
    }

    /// The elements, checked to be as many as the shape has.
    pub(crate) fn elements(self, path: &Path) -> Result<Vec<u8>, E>
    where
        E: From<FormatError>,
    {
        let size = self.size();
        let (name, encoding, shape) = (self.name, self.encoding, self.shape);
        let bytes = (self.bytes)()?;
        match size {
            Some(size) if size == bytes.len() as u64 => Ok(bytes),
            _ => {
                let (size, got) = (size.unwrap_or(0), bytes.len());
                let reason = format!("shape {shape:?} of {encoding} has {size} bytes, got {got}");
                Err(damaged(path, &name, reason).into())
            }
        }
    }
}

fn damaged(path: &Path, tensor: &str, reason: String) -> FormatError {
    FormatError::DamagedTensor {
        file: path.to_path_buf(),
        tensor: tensor.to_string(),
        reason,
    }
}

impl<E> fmt::Debug for TensorOut<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, encoding, shape) = (&self.name, self.encoding, &self.shape);
        write!(f, "{name}: {encoding} {shape:?}")
    }
}
