//! Reads GGUF (versions 2 and 3), the files of llama.cpp, as if they were Transformers' files:
//! names, the order of rows and norms are put back, and quantised tensors become f32.

mod config;
mod names;
mod quantized;
mod reader;
mod tokenizer;
mod value;

pub use tokenizer::GgufTokenizerData;

use super::{Checkpoint, Stored, TensorInfo, to_f32};
use crate::{ConfigError, ModelConfig, ModelError, parts::HostScales};
use names::Conversion;
use reader::{Described, Header};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tightrope_device::DType;
use value::GgufValue;

/// Factors of the frequencies; part of the configuration, not of the weights.
const FREQUENCIES: &str = "rope_freqs.weight";
/// They are half as many as a head has features.
const LARGEST_FREQUENCIES: u64 = 1 << 20;

/// An open GGUF file.
#[derive(Debug)]
pub(crate) struct Gguf {
    path: PathBuf,
    conversion: Conversion,
    head_dim: usize,
    tensors: BTreeMap<String, Described>,
}

impl Gguf {
    /// Reads the header of the file at `path`, and the configuration in it.
    pub fn open(path: &Path) -> Result<(ModelConfig, Self), ModelError> {
        let header = reader::read(path)?;
        let config_error = |key: &str, reason: String| ModelError::Config {
            file: path.to_path_buf(),
            error: ConfigError::new(key, reason),
        };
        let architecture = match header.metadata.get("general.architecture") {
            Some(GgufValue::Text(name)) => name.clone(),
            _ => return Err(config_error("general.architecture", "is missing".into())),
        };
        let conversion = names::conversion(&architecture).ok_or_else(|| {
            let reason = format!("`{architecture}` is not supported: {}", names::KNOWN);
            config_error("general.architecture", reason)
        })?;
        if let Some(GgufValue::Integer(parts @ 2..)) = header.metadata.get("split.count") {
            let reason = format!(
                "is split into {parts} files, which are not read together: join them with \
                 `llama-gguf-split --merge`"
            );
            return Err(config_error("split.count", reason));
        }
        let frequencies = header
            .tensors
            .iter()
            .find(|tensor| tensor.name == FREQUENCIES);
        let frequencies = frequencies
            .map(|tensor| match tensor.bytes <= LARGEST_FREQUENCIES {
                true => Ok(to_f32(tensor.encoding.dtype(), &load(path, tensor)?)),
                false => Err(ModelError::DamagedTensor {
                    file: path.to_path_buf(),
                    tensor: FREQUENCIES.to_string(),
                    reason: format!("{} bytes are more than any head has", tensor.bytes),
                }),
            })
            .transpose()?;
        let settings = config::settings(&header, &architecture, &conversion, frequencies);
        let config = settings.and_then(|settings| ModelConfig::from_json(&settings));
        let config = config.map_err(ModelError::config(path))?;
        let Header { tensors, .. } = header;
        let mut renamed = BTreeMap::new();
        for tensor in tensors {
            if tensor.name == FREQUENCIES {
                continue;
            }
            let name = conversion.rename(&tensor.name);
            if renamed.insert(name.clone(), tensor).is_some() {
                return Err(ModelError::Duplicate {
                    file: path.to_path_buf(),
                    tensor: name,
                });
            }
        }
        let gguf = Self {
            path: path.to_path_buf(),
            conversion,
            head_dim: config.architecture().head_dim,
            tensors: renamed,
        };
        Ok((config, gguf))
    }
}

impl Checkpoint for Gguf {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let tensor = self.tensors.get(name)?;
        Some(TensorInfo {
            stored: Stored::Float(tensor.encoding.dtype()),
            shape: tensor.shape.clone(),
        })
    }

    fn file(&self, _: &str) -> &Path {
        &self.path
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ModelError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(ModelError::Missing {
                file: self.path.clone(),
                tensor: name.to_string(),
            });
        };
        let mut bytes = load(&self.path, tensor)?;
        if self.conversion.permutes(name) {
            let rows = tensor.shape.first().copied().unwrap_or(0);
            if !self.head_dim.is_multiple_of(2) || !rows.is_multiple_of(self.head_dim) {
                return Err(ModelError::DamagedTensor {
                    file: self.path.clone(),
                    tensor: tensor.name.clone(),
                    reason: format!("{rows} rows are no heads of {}", self.head_dim),
                });
            }
            bytes = names::unpermute(&bytes, rows, self.head_dim);
        }
        if self.conversion.takes_one_off(name) {
            let dtype = tensor.encoding.dtype();
            if dtype != DType::F32 {
                return Err(ModelError::TensorDType {
                    file: self.path.clone(),
                    tensor: tensor.name.clone(),
                    dtype: dtype.to_string(),
                    expected: "F32",
                });
            }
            let elements = to_f32(dtype, &bytes).into_iter();
            bytes = elements.flat_map(|w| (w - 1.0).to_le_bytes()).collect();
        }
        Ok(bytes)
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(tensor) = self.tensors.remove(from) {
            self.tensors.insert(to.to_string(), tensor);
        }
    }

    fn read_nf4(&self, _: &str) -> Result<Option<(Vec<u8>, HostScales)>, ModelError> {
        Ok(None)
    }
}

/// The elements of a tensor, dequantised.
fn load(path: &Path, tensor: &Described) -> Result<Vec<u8>, ModelError> {
    let mut file = File::open(path).map_err(ModelError::io(path))?;
    file.seek(SeekFrom::Start(tensor.start))
        .map_err(ModelError::io(path))?;
    // The header was checked against the length of the file, so this is never more than that.
    let mut bytes = vec![0; tensor.bytes as usize];
    file.read_exact(&mut bytes).map_err(ModelError::io(path))?;
    Ok(tensor.encoding.decode(bytes))
}
