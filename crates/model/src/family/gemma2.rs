//! Gemma 2: softcaps, alternating windows, four norms per layer.

use super::{
    Family, gemma,
    gguf::{Gguf, GgufFiles, Metadata},
    keys::Keys,
};
use crate::{Architecture, ConfigError, NormPlaces, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;
use tightrope_kernels::glu::Activation;

pub(super) static FAMILY: Family = Family {
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    classifier: Some("Gemma2ForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        norm_plus_one: true,
        loads: gemma::LOADS,
        settings: gguf_settings,
        keys: gguf_keys,
        ..GgufFiles::new("gemma2")
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(4),
        ..gemma::DEFAULTS
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    gemma::set_gemma(&mut architecture, settings)?;
    architecture.norm_places = NormPlaces::Around;
    architecture.activation = settings
        .activation("hidden_activation")?
        .unwrap_or(Activation::GeluTanh);
    let scalar = settings.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    architecture.attention_scale = scalar.powf(-0.5) as f32;
    architecture.attention_softcap = softcap(settings, "attn_logit_softcapping", 50.0)?;
    architecture.logit_softcap = softcap(settings, "final_logit_softcapping", 30.0)?;
    let window = settings.window_or_4096()?;
    let pattern = settings.dimension("sliding_window_pattern")?.unwrap_or(2);
    architecture.set_windows(settings, window, |layer| {
        !(layer + 1).is_multiple_of(pattern)
    })?;
    Ok(architecture)
}

/// An explicit null switches the cap off; an absent key is the default.
fn softcap(settings: &Settings<'_>, key: &str, default: f32) -> Result<Option<f32>, ConfigError> {
    match settings.positive(key)? {
        None if !settings.0.contains_key(key) => Ok(Some(default)),
        cap => Ok(cap.map(|cap| cap as f32)),
    }
}

fn gguf_keys(architecture: &Architecture, keys: &mut Keys) {
    keys.windows(architecture, 2);
    keys.optional("attn_logit_softcapping", architecture.attention_softcap);
    keys.optional("final_logit_softcapping", architecture.logit_softcap);
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    gemma::gguf_window_and_scalar(metadata, settings, 46)?;
    metadata.layer_types(settings)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = metadata.number(key)? {
            settings.insert(key.into(), json!(cap));
        }
    }
    Ok(())
}
