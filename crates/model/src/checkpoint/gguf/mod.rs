//! Reads GGUF files as if they were files of Transformers: it restores names, the order of rows and
//! norms, and converts quantised tensors to f32.

mod adapter;
mod names;
mod unsaid;
mod write;

pub use write::{Fallback, GgufSummary};

use super::{Checkpoint, Stored, TensorInfo, dtype};
use crate::{
    ModelConfig, ModelError,
    family::{
        self,
        gguf::{self, GgufFiles},
    },
    parts::HostScales,
};
use names::Conversion;
use std::{collections::BTreeMap, path::Path};
use tightrope_device::DType;
use tightrope_formats::{
    Encoding, FormatError, Tensors,
    gguf::{Gguf, Value},
};

/// Name of the tensor with factors of the frequencies, which belong to the configuration and not to
/// the weights.
const FREQUENCIES: &str = "rope_freqs.weight";
/// Largest number of these factors; there are half as many as features of a head.
const LARGEST_FREQUENCIES: usize = 1 << 20;

/// A model in a GGUF file.
#[derive(Debug)]
pub(crate) struct GgufModel {
    conversion: Conversion,
    head_dim: usize,
    tensors: Tensors,
    /// Name in the file for each name in Transformers.
    names: BTreeMap<String, String>,
}

impl GgufModel {
    /// Reads the header of the file at `path`, and the configuration in it.
    pub(crate) fn open(path: &Path) -> Result<(ModelConfig, Self), ModelError> {
        let gguf = Gguf::open(path)?;
        let (metadata, tensors) = (&gguf.metadata, &gguf.tensors);
        let parts = metadata.get("split.count").and_then(Value::as_integer);
        if let Some(parts @ 2..) = parts {
            let reason = format!(
                "is split into {parts} files, which are not read together: join them with \
                 `llama-gguf-split --merge`"
            );
            return Err(metadata.error("split.count", reason).into());
        }
        let frequencies = match tensors.info(FREQUENCIES) {
            None => None,
            Some(tensor) if tensor.bytes <= LARGEST_FREQUENCIES => {
                Some(tensors.read_f32(FREQUENCIES)?)
            }
            Some(tensor) => {
                return Err(ModelError::Format(FormatError::DamagedTensor {
                    file: path.to_path_buf(),
                    tensor: FREQUENCIES.to_string(),
                    reason: format!("{} bytes are more than any head has", tensor.bytes),
                }));
            }
        };
        let (config, files) = configuration(&gguf, frequencies)?;
        let conversion = Conversion {
            files,
            norm_places: config.architecture().norm_places,
        };
        let mut names = BTreeMap::new();
        for name in tensors.names().filter(|name| *name != FREQUENCIES) {
            let renamed = conversion.rename(name);
            if names.insert(renamed.clone(), name.to_string()).is_some() {
                return Err(ModelError::Format(FormatError::Duplicate {
                    file: path.to_path_buf(),
                    tensor: renamed,
                }));
            }
        }
        let model = Self {
            conversion,
            head_dim: config.architecture().head_dim,
            tensors: gguf.tensors,
            names,
        };
        Ok((config, model))
    }
}

/// The configuration that the metadata of a file mean, with the files of its family; `frequencies` are
/// the factors of `rope_freqs.weight`.
fn configuration(
    gguf: &Gguf,
    frequencies: Option<Vec<f32>>,
) -> Result<(ModelConfig, &'static GgufFiles), ModelError> {
    let metadata = &gguf.metadata;
    let key = "general.architecture";
    let architecture = metadata.get(key).and_then(Value::as_text);
    let architecture = architecture.ok_or_else(|| metadata.error(key, "is missing"))?;
    let found = family::find_gguf(architecture);
    let (family, files) = found.map_err(|reason| metadata.error(key, reason))?;
    let settings = gguf::settings(gguf, (family, files), frequencies)?;
    let config = ModelConfig::from_json(&settings);
    Ok((config.map_err(ModelError::config(metadata.path()))?, files))
}

impl Checkpoint for GgufModel {
    fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let tensor = self.tensors.info(self.names.get(name)?)?;
        Some(TensorInfo {
            stored: Stored::Float(dtype(tensor.encoding).unwrap_or(DType::F32)),
            shape: tensor.shape.clone(),
        })
    }

    fn file(&self, name: &str) -> &Path {
        self.tensors.file(name)
    }

    fn read(&self, name: &str) -> Result<(Encoding, Vec<u8>), ModelError> {
        let own = self.names.get(name).map_or(name, String::as_str);
        let tensor = self.tensors.info(own);
        let tensor = tensor.ok_or_else(|| self.tensors.missing(name))?;
        let (file, encoding) = (tensor.file.to_path_buf(), tensor.encoding);
        let mut bytes = self.tensors.read(own)?;
        // Rows are whole blocks.
        if self.conversion.permutes(name) {
            let rows = tensor.shape.first().copied().unwrap_or(0);
            if !self.head_dim.is_multiple_of(2) || !rows.is_multiple_of(self.head_dim) {
                return Err(ModelError::Format(FormatError::DamagedTensor {
                    file,
                    tensor: own.to_string(),
                    reason: format!("{rows} rows are no heads of {}", self.head_dim),
                }));
            }
            bytes = names::unpermute(&bytes, rows, self.head_dim);
        }
        if !self.conversion.takes_one_off(name) {
            return Ok((encoding, bytes));
        }
        let elements = match encoding {
            Encoding::F16 | Encoding::Bf16 => None,
            _ => encoding.to_f32(&bytes),
        };
        let elements = elements.ok_or_else(|| FormatError::TensorDType {
            file,
            tensor: own.to_string(),
            dtype: encoding.to_string(),
            expected: "F32",
        })?;
        let elements = elements.into_iter().flat_map(|w| (w - 1.0).to_le_bytes());
        Ok((Encoding::F32, elements.collect()))
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(name) = self.names.remove(from) {
            self.names.insert(to.to_string(), name);
        }
    }

    fn read_nf4(&self, _: &str) -> Result<Option<(Vec<u8>, HostScales)>, ModelError> {
        Ok(None)
    }
}
