//! Gemma 3: Gemma 2 without softcaps, with norms of queries and keys, and frequencies of their own in
//! layers with a window.

use super::{
    Family, gemma,
    gguf::{Gguf, GgufFiles, Metadata},
    keys::Keys,
};
use crate::{
    Architecture, ConfigError, NormPlaces, QueryNorms, architecture::Defaults, settings::Settings,
};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;
use tightrope_kernels::glu::Activation;

pub(super) static FAMILY: Family = Family {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    classifier: Some("Gemma3TextForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        norm_plus_one: true,
        loads: gemma::LOADS,
        settings: gguf_settings,
        keys: gguf_keys,
        ..GgufFiles::new("gemma3")
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    // Published files leave out what is the default of Transformers.
    let all = settings.with_defaults(&[
        ("vocab_size", json!(262_208)),
        ("hidden_size", json!(2304)),
        ("intermediate_size", json!(9216)),
        ("num_hidden_layers", json!(26)),
        ("num_attention_heads", json!(8)),
        ("rope_theta", json!(1_000_000.0)),
        ("rope_local_base_freq", json!(10_000.0)),
        ("query_pre_attn_scalar", json!(256)),
        ("sliding_window", json!(4096)),
        ("sliding_window_pattern", json!(6)),
    ]);
    let settings = &Settings(&all);
    let defaults = Defaults {
        kv_heads: Some(4),
        max_positions: 131_072,
        ..gemma::DEFAULTS
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    gemma::set_gemma(&mut architecture, settings)?;
    architecture.norm_places = NormPlaces::Around;
    architecture.query_norms = QueryNorms::Heads;
    architecture.activation = settings
        .activation("hidden_activation")?
        .unwrap_or(Activation::GeluTanh);
    let scalar = settings.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    architecture.attention_scale = scalar.powf(-0.5) as f32;
    let cap = |key| Ok(settings.positive(key)?.map(|cap| cap as f32));
    architecture.attention_softcap = cap("attn_logit_softcapping")?;
    architecture.logit_softcap = cap("final_logit_softcapping")?;
    let pattern = settings.dimension("sliding_window_pattern")?.unwrap_or(6);
    let window = settings.count("sliding_window")?;
    architecture.set_windows(settings, window, |layer| {
        !(layer + 1).is_multiple_of(pattern)
    })?;
    architecture.read_window_rope(settings)?;
    Ok(architecture)
}

fn gguf_keys(architecture: &Architecture, keys: &mut Keys) {
    keys.windows(architecture, 6);
    let own = architecture.window_rope.as_ref();
    let theta = own.unwrap_or(&architecture.rope).theta;
    keys.number("rope.freq_base_swa", theta as f32);
    keys.optional("final_logit_softcapping", architecture.logit_softcap);
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    gemma::gguf_window_and_scalar(metadata, settings, 62)?;
    metadata.layer_types(settings)?;
    if let Some(cap) = metadata.number("final_logit_softcapping")? {
        settings.insert("final_logit_softcapping".into(), json!(cap));
    }
    if let Some(theta) = metadata.number("rope.freq_base_swa")? {
        settings.insert("rope_local_base_freq".into(), json!(theta));
    }
    if metadata.number("rope.freq_base")?.is_none() {
        settings.insert("rope_theta".into(), json!(1_000_000.0));
    }
    Ok(())
}
