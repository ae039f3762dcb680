//! Weight files of any format: named tensors that can be read one by one.

mod bitsandbytes;
mod gguf;
mod head;

pub(crate) use bitsandbytes::{Bitsandbytes, Quantization};
pub(crate) use gguf::GgufModel;
pub use gguf::{Fallback, GgufSummary};
pub(crate) use head::{EMBEDDING, HEAD, SCORE, settle};

use crate::{
    ConfigError, ModelError,
    export::to_bytes,
    parts::{HostScales, Nf4},
};
use half::{bf16, f16};
use std::path::Path;
use tightrope_device::{Cpu, DType, Device, Tensor, ViewMut};
use tightrope_formats::{Encoding, FormatError, Tensors};

/// Storage of a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// f32, bf16 or f16.
    Float(DType),
    /// In NF4.
    Nf4 {
        /// Type before the quantisation.
        dtype: DType,
        /// Whether the scales are quantised themselves.
        double: bool,
    },
}

impl Stored {
    /// Type of the elements, or their type before the quantisation.
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

/// A tensor that the model needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    /// Whether the file may hold the tensor in NF4.
    pub nf4: bool,
}

/// A file, or a folder of files, with the weights of a model.
pub(crate) trait Checkpoint {
    /// Names of all tensors, in order.
    fn names(&self) -> Vec<&str>;
    /// Shape and storage of a tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;
    /// File that holds (or should hold) a tensor, for messages.
    fn file(&self, name: &str) -> &Path;
    /// Elements of a tensor that is [`Stored::Float`], row-major, and their encoding.
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

/// Type of the device with the same bytes.
fn dtype(encoding: Encoding) -> Option<DType> {
    Some(match encoding {
        Encoding::F32 => DType::F32,
        Encoding::Bf16 => DType::BF16,
        Encoding::F16 => DType::F16,
        Encoding::U8 => DType::U8,
        _ => return None,
    })
}

/// Refuses files with a tensor that is not f32, bf16 or f16.
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

/// Names of the other parts of a model with a text part, wherever they stand in a tensor's name.
const OTHER_PARTS: [&str; 2] = ["vision_tower.", "multi_modal_projector."];

/// Whether a tensor is of a part that is left out.
pub(crate) fn is_of_other_part(name: &str) -> bool {
    let own = name.strip_prefix(PREFIX).unwrap_or(name);
    OTHER_PARTS.iter().any(|part| own.starts_with(part))
}

/// Gives the tensors of a model's text the names that they have in a model of text alone. Transformers 5
/// writes `model.language_model.norm.weight`, and earlier releases wrote
/// `language_model.model.norm.weight` and `language_model.lm_head.weight`.
pub(crate) fn take_text_part(checkpoint: &mut dyn Checkpoint) {
    const TEXT: &str = "language_model.";
    let names: Vec<String> = checkpoint.names().into_iter().map(String::from).collect();
    for name in names {
        if let Some(own) = name.strip_prefix(TEXT) {
            checkpoint.rename(&name, own);
        } else if let Some(own) = name.strip_prefix(PREFIX).and_then(|n| n.strip_prefix(TEXT)) {
            checkpoint.rename(&name, &format!("{PREFIX}{own}"));
        }
    }
}

/// Types that can be loaded without conversion of blocks.
const FLOATS: &str = "F32, BF16 or F16";

/// The prefix that some files omit.
const PREFIX: &str = "model.";

/// The name under which a file holds `name`: the same, or without `model.`.
pub(crate) fn find<'a>(checkpoint: &dyn Checkpoint, name: &'a str) -> Option<&'a str> {
    let short = name.strip_prefix(PREFIX);
    [Some(name), short]
        .into_iter()
        .flatten()
        .find(|name| checkpoint.info(name).is_some())
}

/// Checks that the file has exactly the tensors that the model needs, in their shapes.
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
        // The file has the name with and without the prefix: the same tensor twice.
        return Err(match known.contains(&*format!("{PREFIX}{name}")) {
            true => FormatError::Duplicate { file, tensor }.into(),
            false => ModelError::Unexpected { file, tensor },
        });
    }
    Ok(())
}

/// Elements that are converted at a time, so that no copy of a whole tensor in f32 is needed.
const CHUNK: usize = 1 << 20;

/// Reads a tensor into `destination`, which has its shape, and converts its type if needed.
pub(crate) fn read_into<D: Device>(
    checkpoint: &dyn Checkpoint,
    name: &str,
    mut destination: ViewMut<'_, D>,
) -> Result<(), ModelError> {
    let (encoding, bytes) = read(checkpoint, name)?;
    if dtype(encoding) == Some(destination.dtype()) {
        return Ok(destination.write_bytes(&bytes)?);
    }
    let (elements, size) = (encoding.block_elements(), encoding.block_bytes());
    let blocks = (CHUNK / elements).max(1);
    for (index, bytes) in bytes.chunks(blocks * size).enumerate() {
        let values = decoded(checkpoint, name, encoding, bytes)?;
        let start = index * blocks * elements;
        let part = destination
            .reborrow()
            .elements(start..start + values.len())?;
        let bytes = to_bytes(part.dtype(), &values);
        part.write_bytes(&bytes)?;
    }
    Ok(())
}

/// Reads a weight in NF4, or quantises it on the host if the file stores it in another type.
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
            let elements = decoded(checkpoint, &name, encoding, &bytes)?;
            destination.quantize(host, &elements)
        }
    }
}

/// Elements of a weight before its quantisation, which a file must store.
pub(crate) fn read_unquantized(
    checkpoint: &dyn Checkpoint,
    name: &str,
) -> Result<Vec<f32>, ModelError> {
    let info = find(checkpoint, name).and_then(|found| checkpoint.info(found));
    if info.is_some_and(|info| matches!(info.stored, Stored::Nf4 { .. })) {
        let reason = format!(
            "the files hold `{name}` in NF4 already, so what was lost of it is not known: use a model in \
             full precision, or lora.init = \"random\""
        );
        return Err(ModelError::Lora(ConfigError::new("init", reason)));
    }
    let (encoding, bytes) = read(checkpoint, name)?;
    decoded(checkpoint, name, encoding, &bytes)
}

/// Elements of a tensor in f32.
fn decoded(
    checkpoint: &dyn Checkpoint,
    name: &str,
    encoding: Encoding,
    bytes: &[u8],
) -> Result<Vec<f32>, ModelError> {
    let elements = encoding.to_f32(bytes);
    elements.ok_or_else(|| unsupported(checkpoint, name, encoding))
}

/// Elements of a tensor that is not quantised, under either name.
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
