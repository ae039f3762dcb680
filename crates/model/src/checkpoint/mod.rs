//! Weight files, whatever their format: named tensors that can be read one by one.

mod gguf;
mod safetensors;
mod write;

pub(crate) use gguf::Gguf;
pub use gguf::{GgufTokenizerData, GgufValue};
pub(crate) use safetensors::Safetensors;
pub(crate) use write::{TensorOut, write_json, write_safetensors};

use crate::ModelError;
use half::{bf16, f16};
use std::path::Path;
use tightrope_device::{DType, Device, Tensor};

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    /// What [`Checkpoint::read`] gives: f32, bf16 or f16.
    pub dtype: DType,
    pub shape: Vec<usize>,
}

/// A file, or a folder of files, with the weights of a model.
pub(crate) trait Checkpoint {
    /// The names of all tensors, in order.
    fn names(&self) -> Vec<&str>;
    /// What a tensor is.
    fn info(&self, name: &str) -> Option<TensorInfo>;
    /// The file that holds a tensor (or should), for messages.
    fn file(&self, name: &str) -> &Path;
    /// The elements of a tensor, row-major, as little-endian bytes of [`TensorInfo::dtype`].
    fn read(&self, name: &str) -> Result<Vec<u8>, ModelError>;
}

/// The prefix that some files leave away.
const PREFIX: &str = "model.";

/// The name under which a file holds `name`: the same, or without `model.`.
pub(crate) fn find<'a>(checkpoint: &dyn Checkpoint, name: &'a str) -> Option<&'a str> {
    let short = name.strip_prefix(PREFIX);
    [Some(name), short]
        .into_iter()
        .flatten()
        .find(|name| checkpoint.info(name).is_some())
}

/// Checks that the file has exactly the tensors that the model has, in their shapes.
pub(crate) fn check<'a>(
    checkpoint: &dyn Checkpoint,
    expected: impl Iterator<Item = (&'a str, &'a [usize])>,
    ignored: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let mut known = std::collections::HashSet::new();
    for (name, shape) in expected {
        let Some(found) = find(checkpoint, name) else {
            return Err(ModelError::Missing {
                file: checkpoint.file(name).to_path_buf(),
                tensor: name.to_string(),
            });
        };
        let info = checkpoint.info(found).unwrap_or(TensorInfo {
            dtype: DType::F32,
            shape: Vec::new(),
        });
        if info.shape != shape {
            return Err(ModelError::Shape {
                file: checkpoint.file(found).to_path_buf(),
                tensor: found.to_string(),
                expected: shape.to_vec(),
                got: info.shape,
            });
        }
        known.insert(found);
    }
    for name in checkpoint.names() {
        if known.contains(name) || ignored(name) {
            continue;
        }
        let file = checkpoint.file(name).to_path_buf();
        let tensor = name.to_string();
        // With and without the prefix: the same tensor twice.
        return Err(match known.contains(&*format!("{PREFIX}{name}")) {
            true => ModelError::Duplicate { file, tensor },
            false => ModelError::Unexpected { file, tensor },
        });
    }
    Ok(())
}

/// Reads a tensor into `destination`, which has its shape, converting its type if needed.
pub(crate) fn read_into<D: Device>(
    checkpoint: &dyn Checkpoint,
    name: &str,
    destination: &mut Tensor<D>,
) -> Result<(), ModelError> {
    let missing = || ModelError::Missing {
        file: checkpoint.file(name).to_path_buf(),
        tensor: name.to_string(),
    };
    let found = find(checkpoint, name).ok_or_else(missing)?;
    let info = checkpoint.info(found).ok_or_else(missing)?;
    let bytes = checkpoint.read(found)?;
    if info.dtype == destination.dtype() {
        let device = destination.device().clone();
        return Ok(device.write(destination.buffer_mut(), 0, &bytes)?);
    }
    Ok(destination.write(&to_f32(info.dtype, &bytes))?)
}

/// Little-endian bytes of f32, bf16 or f16 as f32; exact.
pub(crate) fn to_f32(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        DType::BF16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        DType::F16 => halves().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        _ => {
            let words = bytes.as_chunks::<4>().0.iter().copied();
            words.map(f32::from_le_bytes).collect()
        }
    }
}
