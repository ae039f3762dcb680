//! SmolLM3: Llama without rotation in every fourth layer, with optional windows.

use super::{
    Family,
    gguf::{Gguf, GgufFiles, Metadata},
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;

pub(super) static FAMILY: Family = Family {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    classifier: Some("SmolLM3ForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        permuted: true,
        settings: gguf_settings,
        keys: super::llama::gguf_keys,
        ..GgufFiles::new("smollm3")
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(4),
        head_dim: None,
        tied_head: true,
        max_positions: 32_768,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    if !names_theta(settings) {
        architecture.rope.theta = 2_000_000.0;
    }
    architecture.read_attention_bias(settings)?;
    architecture.mlp_bias = settings.flag("mlp_bias", false)?;
    architecture.rotated = rotated(settings, architecture.layers())?;
    let window = match settings.flag("use_sliding_window", false)? {
        true => settings.count("sliding_window")?,
        false => None,
    };
    // Without the flag, `layer_types` may name windows that no layer has.
    if window.is_some() {
        let rotated = architecture.rotated.clone();
        architecture.set_windows(settings, window, |layer| !rotated[layer])?;
    }
    Ok(architecture)
}

/// `no_rope_layers` has a 1 for each layer that rotates; without it every
/// `no_rope_layer_interval`-th does not.
fn rotated(settings: &Settings<'_>, layers: usize) -> Result<Vec<bool>, ConfigError> {
    const KEY: &str = "no_rope_layers";
    let Some(list) = settings.value(KEY) else {
        let interval = settings.dimension("no_rope_layer_interval")?.unwrap_or(4);
        let rotates = |layer: usize| !(layer + 1).is_multiple_of(interval);
        return Ok((0..layers).map(rotates).collect());
    };
    let flag = |value: &Value| match value.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => value.as_bool(),
    };
    let flags: Option<Vec<bool>> = match list.as_array() {
        Some(list) if list.len() >= layers => list[..layers].iter().map(flag).collect(),
        _ => None,
    };
    flags.ok_or_else(|| {
        let reason = format!("expected 0 or 1 for each of {layers} layers, got {list:.60}");
        ConfigError::new(KEY, reason)
    })
}

/// Whether a configuration has the base of the rotation, under either key.
fn names_theta(settings: &Settings<'_>) -> bool {
    let nested = settings.value("rope_parameters");
    let nested = nested.and_then(|parameters| parameters.get("rope_theta"));
    nested
        .or(settings.value("rope_theta"))
        .is_some_and(|theta| !theta.is_null())
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    metadata.refuse_window()?;
    settings.insert("mlp_bias".into(), metadata.mlp_bias());
    // The file does not say: llama.cpp rotates in all but every fourth layer.
    settings.insert("no_rope_layer_interval".into(), json!(4));
    Ok(())
}
