//! Settings that decide the frequencies of a model, and how to read them from a `config.json`.

use crate::RopeError;
use serde_json::{Map, Value};

/// Settings for the frequencies of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Number of elements in a head.
    pub head_dim: usize,
    /// Share of a head that rotates, in (0, 1]; the rest is unchanged.
    pub partial_rotary_factor: f64,
    /// Number of positions that the model is meant for.
    pub max_position_embeddings: usize,
    /// Scaling of the frequencies beyond the positions of the pretraining.
    pub scaling: Scaling,
}

/// Ways to scale the frequencies; the keys are those of `rope_parameters`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Scaling {
    /// `theta^(−2i/d)` (Su et al., 2021).
    Default,
    /// Divides all frequencies by `factor`.
    Linear {
        /// Factor of the stretch.
        factor: f64,
    },
    /// NTK-aware scaling by the length of the sequence: up to `max_position_embeddings` nothing
    /// changes.
    Dynamic {
        /// Factor of the stretch.
        factor: f64,
    },
    /// YaRN (Peng et al., 2023).
    Yarn(Yarn),
    /// Llama 3.1: divides frequencies of long wavelengths by `factor`, keeps short ones, and
    /// interpolates between them.
    Llama3 {
        /// Factor of the stretch of long wavelengths.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are short.
        high_freq_factor: f64,
        /// Number of positions in the pretraining.
        original_max_position_embeddings: usize,
    },
    /// LongRoPE (Ding et al., 2024): one divisor for each frequency, chosen by the length of the
    /// sequence.
    LongRope {
        /// Divisors for sequences up to `original_max_position_embeddings`.
        short_factor: Vec<f64>,
        /// Divisors for longer sequences.
        long_factor: Vec<f64>,
        /// Stretch for the attention factor; if absent, the ratio of the two
        /// `max_position_embeddings`.
        factor: Option<f64>,
        /// Factor of cos and sin; if absent, it follows from the stretch.
        attention_factor: Option<f64>,
        /// Number of positions in the pretraining.
        original_max_position_embeddings: usize,
    },
}

/// Parameters of YaRN.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// Factor of the stretch.
    pub factor: f64,
    /// Number of positions in the pretraining.
    pub original_max_position_embeddings: usize,
    /// Factor of cos and sin; if absent, it follows from the other parameters.
    pub attention_factor: Option<f64>,
    /// With `mscale_all_dim`: the attention factor is a ratio (DeepSeek).
    pub mscale: Option<f64>,
    /// See `mscale`.
    pub mscale_all_dim: Option<f64>,
    /// Dimensions that turn more often than this in the pretraining are kept.
    pub beta_fast: f64,
    /// Dimensions that turn less often than this are stretched.
    pub beta_slow: f64,
    /// Whether the bounds between kept and stretched dimensions are rounded to whole dimensions.
    pub truncate: bool,
}

impl RopeConfig {
    /// Llama's default: no scaling, and the whole head rotates.
    pub fn new(theta: f64, head_dim: usize, max_position_embeddings: usize) -> Self {
        Self {
            theta,
            head_dim,
            partial_rotary_factor: 1.0,
            max_position_embeddings,
            scaling: Scaling::Default,
        }
    }

    /// Number of elements of a head that rotate.
    pub fn rotary_dim(&self) -> usize {
        (self.head_dim as f64 * self.partial_rotary_factor) as usize
    }

    /// Number of positions up to which the frequencies do not depend on the length of the sequence;
    /// `u64::MAX` unless they are those of dynamic NTK or LongRoPE.
    pub fn fixed_length(&self) -> u64 {
        match &self.scaling {
            Scaling::Dynamic { .. } => self.max_position_embeddings as u64,
            Scaling::LongRope {
                original_max_position_embeddings,
                ..
            } => *original_max_position_embeddings as u64,
            _ => u64::MAX,
        }
    }

    /// Reads `rope_scaling` with `rope_theta` (older files), or `rope_parameters` (Transformers 5).
    /// `head_dim` and `max_position_embeddings` come from the caller, because their defaults differ
    /// between families. `rope_theta` defaults to 10,000.
    pub fn from_json(
        config: &Map<String, Value>,
        head_dim: usize,
        max_position_embeddings: usize,
    ) -> Result<Self, RopeError> {
        let parameters = parameters(config)?;
        read(config, parameters, head_dim, max_position_embeddings)
    }

    /// Like [`RopeConfig::from_json`], for the layers of one type as `layer_types` names them
    /// (`full_attention`, `sliding_attention`): an entry of `rope_parameters`, or the shared values
    /// if there is none. An older `rope_local_base_freq` (Gemma 3) is the unscaled base of sliding
    /// layers.
    pub fn from_json_for_layers(
        config: &Map<String, Value>,
        layer_type: &str,
        head_dim: usize,
        max_position_embeddings: usize,
    ) -> Result<Self, RopeError> {
        let parameters = parameters(config)?;
        if let Some(own) = parameters.and_then(|parameters| parameters.get(layer_type)) {
            let own = own
                .as_object()
                .ok_or_else(|| RopeError::json(layer_type, "an object", own))?;
            return read(config, Some(own), head_dim, max_position_embeddings);
        }
        let local = number(config, "rope_local_base_freq")?;
        if let (Some(theta), "sliding_attention") = (local, layer_type) {
            return Ok(Self::new(theta, head_dim, max_position_embeddings));
        }
        read(config, parameters, head_dim, max_position_embeddings)
    }
}

fn parameters(config: &Map<String, Value>) -> Result<Option<&Map<String, Value>>, RopeError> {
    for key in ["rope_scaling", "rope_parameters"] {
        match config.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(parameters)) if parameters.is_empty() => {}
            Some(Value::Object(parameters)) => return Ok(Some(parameters)),
            Some(other) => return Err(RopeError::json(key, "an object", other)),
        }
    }
    Ok(None)
}

fn read(
    config: &Map<String, Value>,
    parameters: Option<&Map<String, Value>>,
    head_dim: usize,
    max_position_embeddings: usize,
) -> Result<RopeConfig, RopeError> {
    let empty = Map::new();
    let parameters = parameters.unwrap_or(&empty);
    // The parameters are shared by all layers or belong to one type; a nested value would otherwise
    // be overlooked.
    if let Some((key, value)) = parameters.iter().find(|(_, value)| value.is_object()) {
        return Err(RopeError::json(key, "parameters of all layers", value));
    }
    let either = |key| match number(parameters, key)? {
        Some(value) => Ok::<_, RopeError>(Some(value)),
        None => number(config, key),
    };
    let original = || {
        Ok::<_, RopeError>(
            match count(config, "original_max_position_embeddings")? {
                Some(original) => Some(original),
                None => count(parameters, "original_max_position_embeddings")?,
            }
            .unwrap_or(max_position_embeddings),
        )
    };
    let factor = || required(parameters, "factor");
    let scaling = match kind(parameters)? {
        "default" => Scaling::Default,
        "linear" => Scaling::Linear { factor: factor()? },
        "dynamic" => Scaling::Dynamic { factor: factor()? },
        "yarn" => {
            let original = original()?;
            let ratio = max_position_embeddings as f64 / original as f64;
            // 0 counts as absent, as it does in the reference.
            let nonzero = |key| Ok::<_, RopeError>(number(parameters, key)?.filter(|&v| v != 0.0));
            Scaling::Yarn(Yarn {
                factor: number(parameters, "factor")?.unwrap_or(ratio),
                original_max_position_embeddings: original,
                attention_factor: number(parameters, "attention_factor")?,
                mscale: nonzero("mscale")?,
                mscale_all_dim: nonzero("mscale_all_dim")?,
                beta_fast: nonzero("beta_fast")?.unwrap_or(32.0),
                beta_slow: nonzero("beta_slow")?.unwrap_or(1.0),
                truncate: flag(parameters, "truncate")?.unwrap_or(true),
            })
        }
        "llama3" => Scaling::Llama3 {
            factor: factor()?,
            low_freq_factor: required(parameters, "low_freq_factor")?,
            high_freq_factor: required(parameters, "high_freq_factor")?,
            original_max_position_embeddings: original()?,
        },
        // The first Phi-3 files call it "su".
        "longrope" | "su" => Scaling::LongRope {
            short_factor: list(parameters, "short_factor")?,
            long_factor: list(parameters, "long_factor")?,
            factor: number(parameters, "factor")?,
            attention_factor: number(parameters, "attention_factor")?,
            original_max_position_embeddings: original()?,
        },
        other => {
            return Err(RopeError::UnknownScaling {
                name: other.to_owned(),
            });
        }
    };
    Ok(RopeConfig {
        theta: either("rope_theta")?.unwrap_or(10_000.0),
        head_dim,
        partial_rotary_factor: either("partial_rotary_factor")?.unwrap_or(1.0),
        max_position_embeddings,
        scaling,
    })
}

/// Value of `rope_type`, or of `type` in older files.
fn kind(parameters: &Map<String, Value>) -> Result<&str, RopeError> {
    for key in ["rope_type", "type"] {
        match parameters.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) => return Ok(name),
            Some(other) => return Err(RopeError::json(key, "a string", other)),
        }
    }
    Ok("default")
}

fn get<'a, T>(
    map: &'a Map<String, Value>,
    key: &str,
    expected: &'static str,
    convert: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, RopeError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(RopeError::json(key, expected, value)),
        },
    }
}

fn number(map: &Map<String, Value>, key: &str) -> Result<Option<f64>, RopeError> {
    get(map, key, "a number", Value::as_f64)
}

fn required(map: &Map<String, Value>, key: &'static str) -> Result<f64, RopeError> {
    number(map, key)?.ok_or(RopeError::Missing { key })
}

fn count(map: &Map<String, Value>, key: &str) -> Result<Option<usize>, RopeError> {
    get(map, key, "a whole number", |value| {
        usize::try_from(value.as_u64()?).ok()
    })
}

fn flag(map: &Map<String, Value>, key: &str) -> Result<Option<bool>, RopeError> {
    get(map, key, "true or false", Value::as_bool)
}

fn list(map: &Map<String, Value>, key: &'static str) -> Result<Vec<f64>, RopeError> {
    let numbers = |value: &Value| value.as_array()?.iter().map(Value::as_f64).collect();
    get(map, key, "a list of numbers", numbers)?.ok_or(RopeError::Missing { key })
}
