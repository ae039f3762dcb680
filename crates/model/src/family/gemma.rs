//! Gemma: GeGLU, norms that store `w - 1`, scaled embeddings, a tied head.

use super::{
    Family,
    gguf::{GgufFiles, Metadata},
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value};
use tightrope_formats::FormatError;
use tightrope_kernels::glu::Activation;

pub(super) static FAMILY: Family = Family {
    model_type: "gemma",
    class: "GemmaForCausalLM",
    classifier: Some("GemmaForSequenceClassification"),
    describe,
    gguf: Some(GgufFiles {
        architecture: "gemma",
        permuted: false,
        norm_plus_one: true,
        settings: gguf_settings,
    }),
};

pub(super) const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(16),
    head_dim: Some(256),
    tied_head: true,
    max_positions: 8192,
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = Architecture::common(settings, &DEFAULTS)?;
    set_gemma(&mut architecture, settings)?;
    // The first releases have `gelu` in `hidden_act` and mean the tanh form.
    architecture.activation = match settings.activation("hidden_activation")? {
        Some(activation) => activation,
        None => match settings.activation("hidden_act")? {
            None | Some(Activation::GeluErf) => Activation::GeluTanh,
            Some(activation) => activation,
        },
    };
    architecture.set_windows(settings, None, |_| false)?;
    Ok(architecture)
}

/// Settings that Gemma and Gemma 2 share.
pub(super) fn set_gemma(
    architecture: &mut Architecture,
    settings: &Settings<'_>,
) -> Result<(), ConfigError> {
    architecture.norm_plus_one = true;
    architecture.embedding_scale = (architecture.hidden as f64).sqrt() as f32;
    architecture.read_attention_bias(settings)
}

fn gguf_settings(metadata: &Metadata<'_>, _: &mut Map<String, Value>) -> Result<(), FormatError> {
    metadata.refuse_window()
}
