//! Granite 3: Llama with factors of the embedding, of the residual additions, of scores and of
//! logits.

use super::{
    Family,
    gguf::{Gguf, GgufFiles, Metadata},
    keys::Keys,
    llama,
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value, json};
use tightrope_formats::{FormatError, gguf::Value as GgufValue};

pub(super) static FAMILY: Family = Family {
    model_type: "granite",
    class: "GraniteForCausalLM",
    classifier: None,
    describe,
    gguf: Gguf::Own(GgufFiles {
        permuted: true,
        loads: llama::LOADS,
        settings: gguf_settings,
        keys: gguf_keys,
        ..GgufFiles::new("granite")
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
    let factor = |key| Ok(settings.positive(key)?.unwrap_or(1.0));
    architecture.embedding_scale = factor("embedding_multiplier")? as f32;
    architecture.residual_scale = factor("residual_multiplier")? as f32;
    architecture.attention_scale = factor("attention_multiplier")? as f32;
    architecture.logit_scale = factor("logits_scaling")?.recip() as f32;
    architecture.read_attention_bias(settings)?;
    architecture.mlp_bias = settings.flag("mlp_bias", false)?;
    if architecture.residual_scale != 1.0 {
        let reason = "biases together with residual_multiplier are not supported";
        settings.refuse("attention_bias", reason)?;
        settings.refuse("mlp_bias", reason)?;
    }
    Ok(architecture)
}

fn gguf_keys(architecture: &Architecture, keys: &mut Keys) {
    llama::gguf_keys(architecture, keys);
    keys.number("embedding_scale", architecture.embedding_scale);
    keys.number("residual_scale", architecture.residual_scale);
    keys.number("attention.scale", architecture.attention_scale);
    let divisor = f64::from(architecture.logit_scale).recip();
    keys.number("logit_scale", divisor as f32);
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    metadata.refuse_window()?;
    if metadata.value("rope.scaling.finetuned") == Some(&GgufValue::Bool(false)) {
        let reason = "models without rotation are not supported";
        return Err(metadata.error("rope.scaling.finetuned", reason));
    }
    settings.insert("mlp_bias".into(), metadata.mlp_bias());
    for (key, name) in [
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("attention_multiplier", "attention.scale"),
        ("logits_scaling", "logit_scale"),
    ] {
        settings.insert(key.into(), json!(metadata.required_number(name)?));
    }
    Ok(())
}
