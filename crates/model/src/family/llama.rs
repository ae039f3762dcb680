//! Llama 2 and 3, and models with the same architecture (SmolLM2, Yi, …).

use super::Family;
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};

pub(super) static FAMILY: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    describe,
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
