//! OLMo 3: OLMo 2 with windows in three of four layers, whose frequencies are not scaled.

use super::{Family, gguf::Gguf, olmo2};
use crate::{Architecture, ConfigError, settings::Settings};
use serde_json::json;

pub(super) static FAMILY: Family = Family {
    model_type: "olmo3",
    class: "Olmo3ForCausalLM",
    classifier: Some("Olmo3ForSequenceClassification"),
    describe,
    gguf: Gguf::Of(&olmo2::FAMILY),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = olmo2::common(settings)?;
    let window = settings.window_or_4096()?;
    architecture.set_windows(settings, window, |layer| !(layer + 1).is_multiple_of(4))?;
    // A shared scaling is that of the other layers.
    let theta = json!(architecture.rope.theta);
    let all = settings.with_defaults(&[("rope_local_base_freq", theta)]);
    architecture.read_window_rope(&Settings(&all))?;
    Ok(architecture)
}
