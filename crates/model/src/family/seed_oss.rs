//! Seed-OSS: Llama with biases of queries, keys and values, and an independent head dimension.

use super::Family;
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};

pub(super) static FAMILY: Family = Family {
    model_type: "seed_oss",
    class: "SeedOssForCausalLM",
    classifier: Some("SeedOssForSequenceClassification"),
    describe,
    gguf: None,
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
