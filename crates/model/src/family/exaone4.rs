//! EXAONE 4: norms of outputs and of the queries and keys of each head, and windows without which a
//! layer does not rotate.

use super::{
    Family,
    gguf::{Gguf, GgufFiles, Loads, Metadata},
    keys::Keys,
};
use crate::{
    Architecture, ConfigError, NormPlaces, QueryNorms, architecture::Defaults, settings::Settings,
};
use serde_json::{Map, Value, json};
use tightrope_formats::FormatError;

pub(super) static FAMILY: Family = Family {
    model_type: "exaone4",
    class: "Exaone4ForCausalLM",
    classifier: Some("Exaone4ForSequenceClassification"),
    describe,
    gguf: Gguf::Own(GgufFiles {
        loads: Loads {
            rope_factors: true,
            ..Loads::LEAST
        },
        settings: gguf_settings,
        keys: gguf_keys,
        ..GgufFiles::new("exaone4")
    }),
};

fn describe(settings: &Settings<'_>) -> Result<Architecture, ConfigError> {
    let all = settings.with_defaults(&[("rms_norm_eps", 1e-5.into())]);
    let settings = &Settings(&all);
    let defaults = Defaults {
        kv_heads: Some(32),
        head_dim: None,
        tied_head: false,
        max_positions: 2048,
    };
    let mut architecture = Architecture::common(settings, &defaults)?;
    architecture.norm_places = NormPlaces::After;
    architecture.query_norms = QueryNorms::Heads;
    let window = settings.window_or_4096()?;
    // Without windows every layer sees all, whatever `layer_types` says, and rotates.
    if window.is_none() {
        return Ok(architecture);
    }
    let pattern = pattern(settings, architecture.layers())?;
    architecture.set_windows(settings, window, |layer| pattern[layer])?;
    architecture.rotated = architecture.windows.iter().map(Option::is_some).collect();
    Ok(architecture)
}

/// Whether each layer slides by `sliding_window_pattern`: a number, of which every multiple sees all,
/// or letters that repeat (`LLLG`), after which the last layer sees all.
fn pattern(settings: &Settings<'_>, layers: usize) -> Result<Vec<bool>, ConfigError> {
    const KEY: &str = "sliding_window_pattern";
    let Some(letters) = settings.value(KEY).and_then(|value| value.as_str()) else {
        let every = settings.dimension(KEY)?.unwrap_or(4);
        return Ok((1..=layers)
            .map(|layer| !layer.is_multiple_of(every))
            .collect());
    };
    if letters.is_empty() || letters.chars().any(|letter| !"LG".contains(letter)) {
        let reason = format!("expected the letters L and G, got `{letters}`");
        return Err(ConfigError::new(KEY, reason));
    }
    let local = letters.chars().map(|letter| letter == 'L').cycle();
    let mut local: Vec<bool> = local.take(layers).collect();
    if let Some(last) = local.last_mut() {
        *last = false;
    }
    Ok(local)
}

/// llama.cpp has windows in the model of this number of layers alone; in others every layer sees all
/// and rotates.
const LAYERS_WITH_WINDOWS: usize = 64;

fn gguf_keys(architecture: &Architecture, keys: &mut Keys) {
    keys.count("vocab_size", architecture.vocabulary);
    if architecture.windows.iter().any(Option::is_some) {
        keys.windows(architecture, 4);
    }
}

fn gguf_settings(
    metadata: &Metadata<'_>,
    settings: &mut Map<String, Value>,
) -> Result<(), FormatError> {
    let windows = metadata.required("block_count")? == LAYERS_WITH_WINDOWS as u64;
    let window = match windows {
        true => Some(metadata.window()?.unwrap_or(4096)),
        false => None,
    };
    settings.insert("sliding_window".into(), json!(window));
    if window.is_some() {
        metadata.layer_types(settings)?;
    }
    Ok(())
}
