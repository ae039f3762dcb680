//! Qwen2 and Qwen2.5: biases on queries, keys and values; windows in the upper layers.

use super::{
    Family,
    gguf::{Gguf, GgufFiles},
};
use crate::{Architecture, ConfigError, architecture::Defaults, settings::Settings};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    classifier: Some("Qwen2ForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles::new("qwen2")),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(32),
        head_dim: None,
        tied_head: false,
        max_positions: 32_768,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    architecture.qkv_bias = true;
    set_upper_windows(&mut architecture, settings)?;
    Ok(architecture)
}

/// With `use_sliding_window`, layers from `max_window_layers` on have windows, unless `layer_types`
/// says which layers do.
pub(super) fn set_upper_windows(
    architecture: &mut Architecture,
    settings: &Settings<'_>,
) -> Result<(), ConfigError> {
    let window = if settings.flag("use_sliding_window", false)? {
        match settings.count("sliding_window")? {
            None if !settings.0.contains_key("sliding_window") => Some(4096),
            window => window,
        }
    } else {
        None
    };
    let full = settings.count("max_window_layers")?.unwrap_or(28);
    architecture.set_windows(settings, window, |layer| window.is_some() && layer >= full)
}
