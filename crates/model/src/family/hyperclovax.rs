//! HyperCLOVA X SEED Think: Llama with the factors of Granite, of which that of the logits
//! multiplies, and with norms of the outputs of attention and MLP.

use super::{Family, gguf::Gguf};
use crate::{Architecture, ConfigError, NormPlaces, architecture::Defaults, settings::Settings};

pub(super) static FAMILY: Family = Family {
    model_type: "hyperclovax",
    class: "HyperCLOVAXForCausalLM",
    classifier: None,
    describe,
    // llama.cpp does not know the family.
    gguf: Gguf::None,
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: None,
        head_dim: None,
        tied_head: false,
        max_positions: 2048,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    let factor = |key| Ok(settings.positive(key)?.unwrap_or(1.0) as f32);
    architecture.embedding_scale = factor("embedding_multiplier")?;
    architecture.residual_scale = factor("residual_multiplier")?;
    architecture.logit_scale = factor("logits_scaling")?;
    if let Some(scale) = settings.positive("attention_multiplier")? {
        architecture.attention_scale = scale as f32;
    }
    architecture.read_attention_bias(settings)?;
    architecture.mlp_bias = settings.flag("mlp_bias", false)?;
    if settings.flag("use_post_norm", true)? {
        architecture.norm_places = NormPlaces::Peri;
    }
    let biases = architecture.output_bias || architecture.mlp_bias;
    if architecture.residual_scale != 1.0 && (architecture.norm_places.after() || biases) {
        let reason = "is not supported together with use_post_norm or biases, unless it is 1";
        return Err(ConfigError::new("residual_multiplier", reason));
    }
    architecture.set_windows(settings, None, |_| false)?;
    Ok(architecture)
}
