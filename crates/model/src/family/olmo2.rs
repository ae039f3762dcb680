//! OLMo 2: Llama with norms of the outputs of attention and MLP, and of all queries and keys of a
//! token together.

use super::{
    Family,
    gguf::{Gguf, GgufFiles, Loads, Metadata, OwnHead},
    keys::Keys,
};
use crate::{
    Architecture, ConfigError, NormPlaces, QueryNorms, architecture::Defaults, settings::Settings,
};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;

pub(super) static FAMILY: Family = Family {
    model_type: "olmo2",
    class: "Olmo2ForCausalLM",
    classifier: Some("Olmo2ForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        loads: Loads {
            own_head: OwnHead::Always,
            ..Loads::LEAST
        },
        settings: gguf_settings,
        keys: gguf_keys,
        ..GgufFiles::new("olmo2")
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = common(settings)?;
    architecture.set_windows(settings, None, |_| false)?;
    Ok(architecture)
}

/// Files of OLMo 3 have windows in most layers, whose frequencies are not scaled.
fn gguf_keys(architecture: &Architecture, keys: &mut Keys) {
    if architecture.windows.iter().any(Option::is_some) {
        keys.windows(architecture, 4);
    }
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    if let Some(window) = metadata.window()? {
        let model_type = super::olmo3::FAMILY.model_type;
        settings.insert("model_type".into(), json!(model_type));
        settings.insert("sliding_window".into(), json!(window));
        settings.insert(
            "rope_local_base_freq".into(),
            settings["rope_theta"].clone(),
        );
        metadata.layer_types(settings)?;
    }
    Ok(())
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
