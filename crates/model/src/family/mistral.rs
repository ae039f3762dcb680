//! Mistral: Llama with a sliding window in every layer and an independent head dimension.

use super::{Family, gguf::Gguf};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};

pub(super) static FAMILY: Family = Family {
    model_type: "mistral",
    class: "MistralForCausalLM",
    classifier: Some("MistralForSequenceClassification"),
    describe,
    // Its GGUF files are those of Llama, with a window.
    gguf: Gguf::Of(&super::llama::FAMILY),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(8),
        head_dim: None,
        tied_head: false,
        max_positions: 131_072,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    // The first Mistral had a window of 4,096; an explicit null means none.
    let window = match settings.count("sliding_window")? {
        None if !settings.0.contains_key("sliding_window") => Some(4096),
        window => window,
    };
    // Transformers ignores `layer_types` here and uses windows in every layer: a setting that would
    // differ is refused.
    architecture.set_windows(settings, window, |_| window.is_some())?;
    if architecture.windows.iter().any(|&w| w != window) {
        let reason = "all layers of this family have the same window";
        return Err(ConfigError::new("layer_types", reason));
    }
    Ok(architecture)
}
