//! OLMo 2: Llama with norms of the outputs of attention and MLP, and of all queries and keys of a
//! token together.

use super::{Family, gguf::GgufFiles};
use crate::{
    Architecture, ConfigError, NormPlaces, QueryNorms, architecture::Defaults, settings::Settings,
};

pub(super) static FAMILY: Family = Family {
    model_type: "olmo2",
    class: "Olmo2ForCausalLM",
    classifier: Some("Olmo2ForSequenceClassification"),
    describe,
    gguf: Some(GgufFiles {
        architecture: "olmo2",
        permuted: false,
        norm_plus_one: false,
        // Files of OLMo 3 have windows.
        settings: |metadata, _| metadata.refuse_window(),
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = common(settings)?;
    architecture.set_windows(settings, None, |_| false)?;
    Ok(architecture)
}

/// What OLMo 2 and OLMo 3 share.
pub(super) fn common(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = [
        ("rope_theta", 500_000.0.into()),
        ("rms_norm_eps", 1e-5.into()),
    ];
    let all = settings.with_defaults(&defaults);
    let settings = &Settings(&all);
    let defaults = Defaults {
        kv_heads: None,
        head_dim: None,
        tied_head: false,
        max_positions: 2048,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    architecture.norm_places = NormPlaces::After;
    architecture.query_norms = QueryNorms::Tokens;
    architecture.read_attention_bias(settings)?;
    Ok(architecture)
}
