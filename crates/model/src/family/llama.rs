//! Llama 2 and 3, and models with the same architecture (SmolLM2, Yi, …).

use super::{
    Family,
    gguf::{GgufFiles, Metadata},
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;

pub(super) static FAMILY: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    classifier: Some("LlamaForSequenceClassification"),
    describe,
    gguf: Some(GgufFiles {
        architecture: "llama",
        permuted: true,
        norm_plus_one: false,
        settings: gguf_settings,
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: None,
        head_dim: None,
        tied_head: false,
        max_positions: 2048,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    architecture.read_attention_bias(settings)?;
    architecture.mlp_bias = settings.flag("mlp_bias", false)?;
    architecture.set_windows(settings, None, |_| false)?;
    Ok(architecture)
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    match metadata.window()? {
        // Converted Mistral models call themselves llama; only the window distinguishes them.
        Some(window) => {
            settings.insert(
                "model_type".into(),
                json!(super::mistral::FAMILY.model_type),
            );
            settings.insert("sliding_window".into(), json!(window));
        }
        None => {
            settings.insert("mlp_bias".into(), metadata.mlp_bias());
        }
    }
    Ok(())
}
