//! Reads settings of a configuration; every error names the key.

use crate::ConfigError;
use serde_json::{Map, Value};
use tightrope_kernels::glu::Activation;

/// Largest size of a dimension: products of three dimensions stay below 2⁶³.
const LARGEST: usize = 1 << 20;

/// The keys of one JSON object. `null` counts as absent, as in Transformers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a>(pub &'a Map<String, Value>);

impl<'a> Settings<'a> {
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn dimension(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
        {
            Some(number) if (1..=LARGEST).contains(&number) => Ok(Some(number)),
            _ => Err(ConfigError::new(
                key,
                format!("expected a whole number from 1 to {LARGEST}, got {value}"),
            )),
        }
    }

    pub(crate) fn required_dimension(&self, key: &str) -> Result<usize, ConfigError> {
        self.dimension(key)?
            .ok_or_else(|| ConfigError::new(key, "is missing"))
    }

    /// The settings, with `defaults` for the keys that are absent; an explicit null stays.
    pub(crate) fn with_defaults(&self, defaults: &[(&str, Value)]) -> Map<String, Value> {
        let mut all = self.0.clone();
        for (key, value) in defaults {
            all.entry(*key).or_insert_with(|| value.clone());
        }
        all
    }

    /// `sliding_window`, which is 4096 if the key is absent; an explicit null switches windows off.
    pub(crate) fn window_or_4096(&self) -> Result<Option<usize>, ConfigError> {
        match self.count("sliding_window")? {
            None if !self.0.contains_key("sliding_window") => Ok(Some(4096)),
            window => Ok(window),
        }
    }

    /// A whole number that may be 0 and is no size in memory.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
        {
            Some(number) => Ok(Some(number)),
            None => Err(ConfigError::new(
                key,
                format!("expected a whole number of at least 0, got {value}"),
            )),
        }
    }

    /// A list of texts; absent: none.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let wrong = |value: &Value| {
            let reason = format!("expected a list of names, got {value}");
            ConfigError::new(key, reason)
        };
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(item)))
                .collect(),
            Some(value) => Err(wrong(value)),
        }
    }

    /// A list of whole numbers, or one; absent: none.
    pub(crate) fn counts(&self, key: &str) -> Result<Vec<u64>, ConfigError> {
        let wrong = |value: &Value| {
            let reason = format!("expected whole numbers, got {value}");
            ConfigError::new(key, reason)
        };
        let number = |value: &Value| value.as_u64().ok_or_else(|| wrong(value));
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(number).collect(),
            Some(value) => Ok(vec![number(value)?]),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(ConfigError::new(
                key,
                format!("expected a number, got {value}"),
            )),
        }
    }

    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        match self.number(key)? {
            Some(number) if number <= 0.0 => Err(ConfigError::new(
                key,
                format!("expected a positive number, got {number}"),
            )),
            number => Ok(number),
        }
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(ConfigError::new(
                key,
                format!("expected true or false, got {value}"),
            )),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(ConfigError::new(key, format!("expected text, got {value}"))),
        }
    }

    /// An activation by its name in Transformers.
    pub(crate) fn activation(&self, key: &str) -> Result<Option<Activation>, ConfigError> {
        Ok(match self.text(key)? {
            None => None,
            Some("silu" | "swish") => Some(Activation::Silu),
            Some("gelu") => Some(Activation::GeluErf),
            Some("gelu_pytorch_tanh" | "gelu_new") => Some(Activation::GeluTanh),
            Some(other) => {
                let reason = format!(
                    "`{other}` is not supported: silu, swish, gelu, gelu_pytorch_tanh and gelu_new are"
                );
                return Err(ConfigError::new(key, reason));
            }
        })
    }

    /// Refuses a setting that would change the computation of the model, unless it is disabled.
    pub(crate) fn refuse(&self, key: &str, reason: &str) -> Result<(), ConfigError> {
        match self.value(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(()),
            Some(_) => Err(ConfigError::new(key, reason)),
        }
    }
}
