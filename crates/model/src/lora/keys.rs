//! The keys of PEFT's `LoraConfig`, and what becomes of each.

use crate::{ConfigError, settings::Settings};
use serde_json::{Map, Value};

/// Keys that are read.
const READ: &[&str] = &[
    "alpha_pattern",
    "bias",
    "ensure_weight_tying",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
];

/// Keys that do not change the computation of a saved adapter: its origin, and settings of methods
/// that have their own switch or are over once the adapter is saved.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// Initial values that leave the base weights as they are.
const PLAIN_STARTS: &[&str] = &["eva", "gaussian", "orthogonal"];

/// Refuses settings that change the computation and are not supported. A key that is not listed
/// here must be off, so that a setting of a future PEFT is refused too.
pub(super) fn check(settings: &Map<String, Value>) -> Result<(), ConfigError> {
    let reader = Settings(settings);
    match reader.text("peft_type")? {
        Some("LORA") => {}
        other => {
            let got = other.map_or("nothing".to_owned(), |value| format!("`{value}`"));
            let reason = format!("expected `LORA`, got {got}");
            return Err(ConfigError::new("peft_type", reason));
        }
    }
    match reader.value("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(name)) if PLAIN_STARTS.contains(&name.as_str()) => {}
        Some(other) => {
            let reason = format!(
                "{other} is not supported: such an adapter belongs to changed base weights, which \
                 are not in its files; save it in PEFT with path_initial_model_for_weight_conversion"
            );
            return Err(ConfigError::new("init_lora_weights", reason));
        }
    }
    for (key, value) in settings {
        let known = HARMLESS.contains(&key.as_str()) || READ.contains(&key.as_str());
        if !known && !is_off(value) {
            return Err(ConfigError::new(key, format!("{value} is not supported")));
        }
    }
    Ok(())
}

/// Whether a value disables its key.
pub(super) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
