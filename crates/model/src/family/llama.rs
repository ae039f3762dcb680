//! Llama 2 and 3, and models with the same architecture (SmolLM2, Yi, …).

use super::{
    Family,
    gguf::{Gguf, GgufFiles, Loads, Metadata, OwnHead},
    keys::Keys,
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;

pub(super) static FAMILY: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    classifier: Some("LlamaForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        permuted: true,
        loads: LOADS,
        settings: gguf_settings,
        keys: gguf_keys,
        ..GgufFiles::new("llama")
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

/// What llama.cpp loads for models of this architecture.
pub(super) const LOADS: Loads = Loads {
    output_bias: true,
    mlp_bias: true,
    rope_factors: true,
    windows: false,
    own_head: OwnHead::Possible,
};

/// llama.cpp's converter writes them for Llama and what derives from it. A window is for readers that
/// know it: llama.cpp has none here.
pub(super) fn gguf_keys(architecture: &Architecture, keys: &mut Keys) {
    keys.count("vocab_size", architecture.vocabulary);
    keys.count("rope.dimension_count", architecture.head_dim);
    if let Some(Some(window)) = architecture.windows.first() {
        keys.count("attention.sliding_window", *window);
    }
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
