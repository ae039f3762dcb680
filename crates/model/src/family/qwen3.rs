//! Qwen3: queries and keys normalised per head, and an independent head dimension.

use super::{
    Family,
    gguf::{Gguf, GgufFiles},
    qwen2::set_upper_windows,
};
use crate::{Architecture, ConfigError, QueryNorms, architecture::Defaults, settings::Settings};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    classifier: Some("Qwen3ForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles::new("qwen3")),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(32),
        head_dim: Some(128),
        tied_head: false,
        max_positions: 32_768,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    architecture.query_norms = QueryNorms::Heads;
    architecture.read_attention_bias(settings)?;
    set_upper_windows(&mut architecture, settings)?;
    Ok(architecture)
}
