//! Seed-OSS: Llama with biases of queries, keys and values, and an independent head dimension.

use super::{
    Family,
    gguf::{Gguf, GgufFiles, Metadata},
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;

pub(super) static FAMILY: Family = Family {
    model_type: "seed_oss",
    class: "SeedOssForCausalLM",
    classifier: Some("SeedOssForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        renamed: &[("post_attention_layernorm", "post_attention_norm")],
        settings: gguf_settings,
        ..GgufFiles::new("seed_oss")
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(8),
        head_dim: Some(128),
        tied_head: false,
        max_positions: 524_288,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    architecture.qkv_bias = settings.flag("attention_bias", true)?;
    architecture.output_bias = settings.flag("attention_out_bias", false)?;
    architecture.mlp_bias = settings.flag("mlp_bias", false)?;
    architecture.set_windows(settings, None, |_| false)?;
    Ok(architecture)
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    let output = metadata.has_tensor("blk.0.attn_output.bias");
    settings.insert("attention_out_bias".into(), json!(output));
    settings.insert("mlp_bias".into(), metadata.mlp_bias());
    metadata.refuse_window()
}
