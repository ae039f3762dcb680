//! Gemma: GeGLU, norms that store `w - 1`, scaled embeddings, a tied head.

use super::{
    Family,
    gguf::{Gguf, GgufFiles, Loads, Metadata, OwnHead},
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;
use tightrope_kernels::glu::Activation;

pub(super) static FAMILY: Family = Family {
    model_type: "gemma",
    class: "GemmaForCausalLM",
    classifier: Some("GemmaForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        norm_plus_one: true,
        loads: LOADS,
        ..GgufFiles::new("gemma")
    }),
};

/// What llama.cpp loads for the Gemmas, whose head is always the embedding.
pub(super) const LOADS: Loads = Loads {
    own_head: OwnHead::Never,
    ..Loads::LEAST
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

/// Window and scalar of Gemma 2 and 3, whose 27B model has `layers` layers.
pub(super) fn gguf_window_and_scalar(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
    layers: u64,
) -> Result<(), FormatError> {
    settings.insert("sliding_window".into(), json!(metadata.window()?));
    // The file does not say it: llama.cpp knows that only the 27B model differs.
    let head_dim = settings.get("head_dim").and_then(Value::as_u64);
    let (hidden, heads) = (
        metadata.required("embedding_length")?,
        metadata.required("attention.head_count")?,
    );
    let scalar = match metadata.required("block_count")? {
        found if found == layers => Some(hidden / heads.max(1)),
        _ => head_dim,
    };
    settings.insert("query_pre_attn_scalar".into(), json!(scalar));
    Ok(())
}
