//! Weights that bitsandbytes quantised to NF4, as saved by Transformers.
//!
//! A weight `X` has its codes under the name `X`, its scales under `X.absmax` and its map under
//! `X.quant_map`; quantised scales also have `X.nested_absmax` and `X.nested_quant_map`. All other
//! values are JSON in `X.quant_state.bitsandbytes__nf4`.

use super::{Checkpoint, Stored, TensorInfo, unsupported};
use crate::{ConfigError, ModelError, parts::HostScales, settings::Settings};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use tightrope_device::DType;
use tightrope_formats::{Encoding, FormatError, Tensors};
use tightrope_kernels::{
    dynamic_map::DynamicMap,
    nf4::{self, QuantizedScales},
};

const STATE: &str = ".quant_state.bitsandbytes__nf4";
/// Part of a name that marks quantised weights of any kind.
const ANY_STATE: &str = ".quant_state.bitsandbytes__";
const ABSMAX: &str = ".absmax";
const MAP: &str = ".quant_map";
const NESTED_ABSMAX: &str = ".nested_absmax";
const NESTED_MAP: &str = ".nested_quant_map";
/// Largest size in bytes of the state beside a tensor; real states have a few hundred bytes.
const LARGEST_STATE: usize = 1 << 16;
/// Largest difference between the values of a map and ours, for roundings of the program that
/// computed it.
const MAP_TOLERANCE: f32 = 1e-6;

/// `quantization_config` of a `config.json`.
#[derive(Clone, Debug)]
pub(crate) struct Quantization {
    double: bool,
    skipped: Vec<String>,
}

impl Quantization {
    /// Reads the quantisation from the settings of a model, if its weights are quantised.
    pub(crate) fn read(settings: &Settings<'_>) -> Result<Option<Self>, ConfigError> {
        let section = "quantization_config";
        let settings = match settings.value(section) {
            None => return Ok(None),
            Some(Value::Object(settings)) => Settings(settings),
            Some(other) => {
                let reason = format!("expected an object, got {other}");
                return Err(ConfigError::new(section, reason));
            }
        };
        let inside = |error: ConfigError| ConfigError {
            key: format!("{section}.{}", error.key),
            ..error
        };
        let exactly = |key: &str, default: &str, expected: &str| {
            let got = settings.text(key).map_err(inside)?.unwrap_or(default);
            if got == expected {
                return Ok(());
            }
            let reason = format!("`{got}` is not supported: `{expected}` is");
            Err(ConfigError::new(format!("{section}.{key}"), reason))
        };
        exactly("quant_method", "none", "bitsandbytes")?;
        if !settings.flag("load_in_4bit", false).map_err(inside)? {
            let reason = "only weights in 4 bits are supported";
            return Err(ConfigError::new(format!("{section}.load_in_4bit"), reason));
        }
        exactly("bnb_4bit_quant_type", "fp4", "nf4")?;
        exactly("bnb_4bit_quant_storage", "uint8", "uint8")?;
        let skipped = match settings.value("llm_int8_skip_modules") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let double = settings.flag("bnb_4bit_use_double_quant", false);
        Ok(Some(Self {
            double: double.map_err(inside)?,
            skipped: skipped.into_iter().map(String::from).collect(),
        }))
    }

    /// Storage of the weight `name` of a linear layer, whose unquantised type is `dtype`. The file
    /// itself says what it really holds.
    pub(crate) fn stored(&self, name: &str, dtype: DType) -> Stored {
        let module = format!(".{}.", name.trim_end_matches(".weight"));
        let is_in = |skipped: &String| module.contains(&format!(".{skipped}."));
        match self.skipped.iter().any(is_in) {
            true => Stored::Float(dtype),
            false => Stored::Nf4 {
                dtype,
                double: self.double,
            },
        }
    }
}

/// Safetensors with quantised weights.
#[derive(Debug)]
pub(crate) struct Bitsandbytes {
    files: Tensors,
    weights: BTreeMap<String, Weight>,
}

/// A quantised weight.
#[derive(Debug)]
struct Weight {
    shape: Vec<usize>,
    dtype: DType,
    /// Mean of all scales, if they are quantised themselves.
    offset: Option<f32>,
}

/// State of a weight beside its tensors.
#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

impl Bitsandbytes {
    /// Opens the quantised weights of files whose tensors are bytes; checks everything but the
    /// codes.
    pub(crate) fn new(files: Tensors) -> Result<Self, ModelError> {
        let mut weights = BTreeMap::new();
        for name in files.names() {
            if let Some(weight) = name.strip_suffix(STATE) {
                weights.insert(weight.to_string(), read_weight(&files, weight)?);
            } else if let Some((weight, kind)) = name.split_once(ANY_STATE) {
                let reason = format!("{kind} is not supported: nf4 is");
                return Err(refused(&files, weight, reason));
            }
        }
        let this = Self { files, weights };
        for name in this.names() {
            let tensor = this.files.info(name);
            if let Some(tensor) = tensor.filter(|_| !this.weights.contains_key(name)) {
                super::dtype(tensor.encoding)
                    .filter(|dtype| dtype.is_float())
                    .ok_or_else(|| unsupported(&this.files, name, tensor.encoding))?;
            }
        }
        Ok(this)
    }
}

fn refused(files: &Tensors, tensor: &str, reason: String) -> ModelError {
    ModelError::Quantization {
        file: files.file(tensor).to_path_buf(),
        tensor: tensor.to_string(),
        reason,
    }
}

/// Reads the state of a weight and checks that its tensors agree with it.
fn read_weight(files: &Tensors, name: &str) -> Result<Weight, ModelError> {
    let refused = |reason: String| refused(files, name, reason);
    let state = format!("{name}{STATE}");
    let bytes = files.info(&state).map_or(0, |tensor| tensor.bytes);
    if bytes > LARGEST_STATE {
        return Err(refused(format!(
            "`{state}` has {bytes} bytes, more than {LARGEST_STATE}"
        )));
    }
    let state: State =
        serde_json::from_slice(&files.read(&state)?).map_err(|source| FormatError::Json {
            file: files.file(&state).to_path_buf(),
            source,
        })?;
    let exactly = |what: &str, got: &str, expected: &str| match got == expected {
        true => Ok(()),
        false => Err(refused(format!(
            "{what} {got} is not supported: {expected} is"
        ))),
    };
    exactly("quant_type", &state.quant_type, "nf4")?;
    let number = |n: usize| n.to_string();
    exactly("blocksize", &number(state.blocksize), &number(nf4::BLOCK))?;
    let dtype = match &*state.dtype {
        "float32" => DType::F32,
        "bfloat16" => DType::BF16,
        "float16" => DType::F16,
        other => return Err(refused(format!("dtype {other} is not supported"))),
    };
    let elements = state
        .shape
        .iter()
        .try_fold(1usize, |a, &b| a.checked_mul(b));
    let elements = elements.ok_or_else(|| refused(format!("shape {:?} overflows", state.shape)))?;
    let blocks = elements.div_ceil(nf4::BLOCK);
    // The tensor `part`, checked to have this type and number of elements.
    let part = |part: &str, encoding: Encoding, len: usize| {
        let tensor = format!("{name}{part}");
        let Some(info) = files.info(&tensor) else {
            return Err(files.missing(&tensor).into());
        };
        let (got, count) = (info.encoding, info.shape.iter().product::<usize>());
        match (got, count) == (encoding, len) {
            true => Ok(tensor),
            false => Err(refused(format!(
                "expected {len} elements of {encoding} in `{tensor}`, got {count} of {got}"
            ))),
        }
    };
    let map = |map: &str, expected: &[f32]| {
        let tensor = part(map, Encoding::F32, expected.len())?;
        let got = files.read_f32(&tensor)?;
        let is_ours = |(a, b): (&f32, &f32)| (a - b).abs() <= MAP_TOLERANCE;
        match got.iter().zip(expected).all(is_ours) {
            true => Ok(()),
            false => Err(refused(format!("`{tensor}` differs from the table of NF4"))),
        }
    };
    part("", Encoding::U8, elements.div_ceil(2))?;
    map(MAP, &nf4::VALUES)?;
    // A number beyond f32 becomes infinite.
    let offset = state.nested_offset.map(|offset| offset as f32);
    let offset = match (state.nested_blocksize, offset) {
        (None, None) => {
            part(ABSMAX, Encoding::F32, blocks)?;
            None
        }
        (Some(blocksize), Some(offset)) if offset.is_finite() => {
            exactly(
                "nested_blocksize",
                &number(blocksize),
                &number(nf4::SCALE_BLOCK),
            )?;
            let dtype = state.nested_dtype.as_deref().unwrap_or("float32");
            exactly("nested_dtype", dtype, "float32")?;
            part(ABSMAX, Encoding::U8, blocks)?;
            part(
                NESTED_ABSMAX,
                Encoding::F32,
                blocks.div_ceil(nf4::SCALE_BLOCK),
            )?;
            map(NESTED_MAP, DynamicMap::signed().values())?;
            Some(offset)
        }
        _ => {
            let reason = "nested_blocksize and a finite nested_offset belong together";
            return Err(refused(reason.to_string()));
        }
    };
    Ok(Weight {
        shape: state.shape,
        dtype,
        offset,
    })
}

impl Checkpoint for Bitsandbytes {
    fn names(&self) -> Vec<&str> {
        let parts = [STATE, ABSMAX, MAP, NESTED_ABSMAX, NESTED_MAP];
        let is_part = |name: &&str| {
            let weights = parts.iter().filter_map(|part| name.strip_suffix(part));
            weights
                .into_iter()
                .any(|weight| self.weights.contains_key(weight))
        };
        self.files.names().filter(|name| !is_part(name)).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        match self.weights.get(name) {
            None => Checkpoint::info(&self.files, name),
            Some(weight) => Some(TensorInfo {
                stored: Stored::Nf4 {
                    dtype: weight.dtype,
                    double: weight.offset.is_some(),
                },
                shape: weight.shape.clone(),
            }),
        }
    }

    fn file(&self, name: &str) -> &Path {
        self.files.file(name)
    }

    fn read(&self, name: &str) -> Result<(Encoding, Vec<u8>), ModelError> {
        Checkpoint::read(&self.files, name)
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.files.rename(from, to);
    }

    fn read_nf4(&self, name: &str) -> Result<Option<(Vec<u8>, HostScales)>, ModelError> {
        let Some(weight) = self.weights.get(name) else {
            return Ok(None);
        };
        let codes = self.files.read(name)?;
        let absmax = format!("{name}{ABSMAX}");
        let scales = match weight.offset {
            None => HostScales::Plain(self.files.read_f32(&absmax)?),
            Some(offset) => HostScales::Quantized(QuantizedScales {
                codes: self.files.read(&absmax)?,
                absmax: self.files.read_f32(&format!("{name}{NESTED_ABSMAX}"))?,
                offset,
            }),
        };
        Ok(Some((codes, scales)))
    }
}
