//! Weight files, whatever their format: named tensors that can be read one by one.

mod bitsandbytes;
mod gguf;
mod head;

pub(crate) use bitsandbytes::{Bitsandbytes, Quantization};
pub(crate) use gguf::GgufModel;
pub(crate) use head::{HEAD, settle};

use crate::{
    ModelError,
    parts::{HostScales, Nf4},
};
use half::{bf16, f16};
use std::path::Path;
use tightrope_device::{Cpu, DType, Device, Tensor};
use tightrope_formats::{Encoding, FormatError, Tensors};

/// How a file holds a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// f32, bf16 or f16.
    Float(DType),
    /// In NF4.
    Nf4 {
        /// The type that it was quantised from.
        dtype: DType,
        /// Whether its scales are quantised themselves.
        double: bool,
    },
}

impl Stored {
    /// The type of its elements, before they were quantised if they are.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Stored::Float(dtype) | Stored::Nf4 { dtype, .. } => dtype,
        }
    }
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    pub stored: Stored,
    pub shape: Vec<usize>,
}

/// A tensor that the model has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    /// Whether the file may hold it in NF4.
    pub nf4: bool,
}

/// A file, or a folder of files, with the weights of a model.
pub(crate) trait Checkpoint {
    /// The names of all tensors, in order.
    fn names(&self) -> Vec<&str>;
    /// What a tensor is.
    fn info(&self, name: &str) -> Option<TensorInfo>;
    /// The file that holds a tensor (or should), for messages.
    fn file(&self, name: &str) -> &Path;
    /// The elements of a tensor that is [`Stored::Float`], row-major, and how they are stored.
    fn read(&self, name: &str) -> Result<(Encoding, Vec<u8>), ModelError>;
    /// Gives a tensor another name.
    fn rename(&mut self, from: &str, to: &str);
    /// Codes and scales of a tensor that is [`Stored::Nf4`]; `None` for others.
    fn read_nf4(&self, name: &str) -> Result<Option<(Vec<u8>, HostScales)>, ModelError>;
}

impl Checkpoint for Tensors {
    fn names(&self) -> Vec<&str> {
        Tensors::names(self).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let tensor = Tensors::info(self, name)?;
        Some(TensorInfo {
            stored: Stored::Float(dtype(tensor.encoding)?),
            shape: tensor.shape.clone(),
        })
    }

    fn file(&self, name: &str) -> &Path {
        Tensors::file(self, name)
    }

    fn read(&self, name: &str) -> Result<(Encoding, Vec<u8>), ModelError> {
        let tensor = Tensors::info(self, name).ok_or_else(|| self.missing(name))?;
        Ok((tensor.encoding, Tensors::read(self, name)?))
    }

    fn rename(&mut self, from: &str, to: &str) {
        Tensors::rename(self, from, to);
    }

    fn read_nf4(&self, _: &str) -> Result<Option<(Vec<u8>, HostScales)>, ModelError> {
        Ok(None)
    }
}

/// The type of the device that has the same bytes.
fn dtype(encoding: Encoding) -> Option<DType> {
    Some(match encoding {
        Encoding::F32 => DType::F32,
        Encoding::Bf16 => DType::BF16,
        Encoding::F16 => DType::F16,
        Encoding::U8 => DType::U8,
        _ => return None,
    })
}

/// Refuses files in which anything is no f32, bf16 or f16.
pub(crate) fn only_floats(files: Tensors) -> Result<Tensors, ModelError> {
    for name in files.names() {
        let encoding = files.info(name).map(|tensor| tensor.encoding);
        let is_float = |encoding| dtype(encoding).is_some_and(DType::is_float);
        if let Some(encoding) = encoding.filter(|&encoding| !is_float(encoding)) {
            return Err(unsupported(&files, name, encoding));
        }
    }
    Ok(files)
}

/// What can be loaded as it is.
const FLOATS: &str = "F32, BF16 or F16";

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
    expected: impl Iterator<Item = Expected<'a>>,
    ignored: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let mut known = std::collections::HashSet::new();
    for Expected { name, shape, nf4 } in expected {
        let found = find(checkpoint, name).and_then(|name| Some((name, checkpoint.info(name)?)));
        let Some((found, info)) = found else {
            return Err(missing(checkpoint, name));
        };
        if matches!(info.stored, Stored::Nf4 { .. }) && !nf4 {
            return Err(ModelError::Format(FormatError::TensorDType {
                file: checkpoint.file(found).to_path_buf(),
                tensor: found.to_string(),
                dtype: "NF4".to_string(),
                expected: FLOATS,
            }));
        }
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
            true => FormatError::Duplicate { file, tensor }.into(),
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
    let (encoding, bytes) = read(checkpoint, name)?;
    if dtype(encoding) == Some(destination.dtype()) {
        return Ok(destination.view_mut().write_bytes(&bytes)?);
    }
    let elements = encoding.to_f32(&bytes);
    let elements = elements.ok_or_else(|| unsupported(checkpoint, name, encoding))?;
    Ok(destination.write(&elements)?)
}

/// Reads a weight in NF4, quantising it on the host unless it is stored so.
pub(crate) fn read_nf4_into<D: Device>(
    checkpoint: &dyn Checkpoint,
    host: &Cpu,
    destination: &mut Nf4<Tensor<D>>,
) -> Result<(), ModelError> {
    let name = destination.name.clone();
    let found = find(checkpoint, &name).ok_or_else(|| missing(checkpoint, &name))?;
    if let Some((codes, scales)) = checkpoint.read_nf4(found)? {
        return destination.write(&codes, &scales);
    }
    let (encoding, bytes) = read(checkpoint, &name)?;
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match encoding {
        Encoding::Bf16 => {
            let elements: Vec<bf16> = halves().map(bf16::from_le_bytes).collect();
            destination.quantize(host, &elements)
        }
        Encoding::F16 => {
            let elements: Vec<f16> = halves().map(f16::from_le_bytes).collect();
            destination.quantize(host, &elements)
        }
        _ => {
            let elements = encoding.to_f32(&bytes);
            let elements = elements.ok_or_else(|| unsupported(checkpoint, &name, encoding))?;
            destination.quantize(host, &elements)
        }
    }
}

/// The elements of a tensor that is not quantised, under either name.
fn read(checkpoint: &dyn Checkpoint, name: &str) -> Result<(Encoding, Vec<u8>), ModelError> {
    let found = find(checkpoint, name).ok_or_else(|| missing(checkpoint, name))?;
    checkpoint.read(found)
}

fn missing(checkpoint: &dyn Checkpoint, name: &str) -> ModelError {
    ModelError::Format(FormatError::Missing {
        file: checkpoint.file(name).to_path_buf(),
        tensor: name.to_string(),
    })
}

fn unsupported(checkpoint: &dyn Checkpoint, name: &str, encoding: Encoding) -> ModelError {
    ModelError::Format(FormatError::TensorDType {
        file: checkpoint.file(name).to_path_buf(),
        tensor: name.to_string(),
        dtype: encoding.name().to_string(),
        expected: FLOATS,
    })
}
