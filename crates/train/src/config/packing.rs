//! The section `[packing]`.

use super::{ConfigError, objective, read::Values};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tightrope_data::ExampleKind;
use tightrope_packing::{Algorithm, Layout};
use toml::Value;

/// `[packing]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct PackingSection {
    pub mode: Algorithm,
    pub capacity: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sequences: Option<u32>,
    pub window: usize,
    // Absent like in checkpoints from before the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub share_prefix: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

const SHARE_PREFIX: &str = "packing.share_prefix";
const NOISE: &str = "run.neftune_noise_alpha";

/// Whether sequences share their beginnings if the configuration does not say; refuses it where they
/// cannot.
pub(super) fn share_prefix(
    values: &Values,
    mode: Algorithm,
) -> Result<(&'static str, Value), ConfigError> {
    let kind = objective::kind(values);
    let pairs = kind.compares();
    let given = values.get(SHARE_PREFIX).and_then(Value::as_bool) == Some(true);
    let other = match kind.data() {
        ExampleKind::Pairs => None,
        ExampleKind::Labelled => {
            Some(("objective.kind", "answers that are labelled share nothing"))
        }
        // Steps of packs count no sequences.
        ExampleKind::Sequences => {
            let steps = "batch.sequences_per_step";
            let given = values.get(steps).is_some() && mode.layout() == Layout::Packed;
            given.then_some((steps, "a group of sequences would count as one"))
        }
    };
    if let (Some((key, why)), true, Some(place)) = (other, given, values.place(SHARE_PREFIX)) {
        let message =
            format!("`{SHARE_PREFIX}` = true does not go with `{key}`: {why}; remove one");
        return Err(ConfigError::Conflict {
            place: place.clone(),
            message,
        });
    }
    let noise = values.get(NOISE).and_then(Value::as_float);
    let noise = noise.is_some_and(|noise| noise > 0.0);
    if let (true, true, Some(place)) = (noise, given, values.place(SHARE_PREFIX)) {
        let message = format!(
            "`{SHARE_PREFIX}` = true does not go with `{NOISE}`: each sequence has noise of its own; \
             remove one"
        );
        return Err(ConfigError::Conflict {
            place: place.clone(),
            message,
        });
    }
    let why = match mode.layout() {
        Layout::Padded => Some("rows of padded batches are computed one by one"),
        _ if mode.cuts_sequences() => Some("it cuts sequences anywhere"),
        Layout::PaddingFree if !pairs => {
            Some("its batches count sequences, and a group of sequences would count as one")
        }
        Layout::PaddingFree | Layout::Packed => None,
    };
    if let (Some(why), true, Some(place)) = (why, given, values.place(SHARE_PREFIX)) {
        let message = format!(
            "`{SHARE_PREFIX}` = true does not go with `packing.mode` = \"{mode}\": {why}; choose a \
             mode that packs, or remove it"
        );
        return Err(ConfigError::Conflict {
            place: place.clone(),
            message,
        });
    }
    Ok((
        SHARE_PREFIX,
        Value::Boolean(pairs && why.is_none() && !noise),
    ))
}

#[cfg(test)]
mod tests {
    use crate::{Config, config::ConfigError};
    use std::path::Path;

    fn with(sets: &[&str]) -> Result<Config, ConfigError> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::parse("model = \"a/b\"", Path::new("my.toml"), &sets)
    }

    #[test]
    fn pairs_share_their_prompts_where_they_are_packed() {
        let shares = |sets: &[&str]| with(sets).unwrap().packing.share_prefix;
        let dpo = "objective.kind=dpo";
        assert!(shares(&[dpo]));
        assert!(shares(&[dpo, "packing.mode=padding-free"]));
        assert!(!shares(&[dpo, "packing.mode=padded"]));
        assert!(!shares(&[dpo, "packing.share_prefix=false"]));
        assert!(!shares(&[]));
        assert!(shares(&["packing.share_prefix=true"]));
        for mode in ["padded", "bucketed", "wrapped", "padding-free"] {
            let mode = format!("packing.mode={mode}");
            assert!(!shares(&[&mode]));
            let error = with(&["packing.share_prefix=true", &mode]).unwrap_err();
            assert!(error.to_string().contains("does not go with"), "{error}");
        }
        for other in ["objective.kind=kto", "batch.sequences_per_step=4"] {
            assert!(!shares(&[other]));
            let error = with(&["packing.share_prefix=true", other]).unwrap_err();
            assert!(error.to_string().contains("does not go with"), "{error}");
        }
        assert!(shares(&[dpo, "batch.sequences_per_step=4"]));
        let noise = "run.neftune_noise_alpha=5";
        assert!(!shares(&[dpo, noise]));
        let error = with(&[dpo, noise, "packing.share_prefix=true"]).unwrap_err();
        assert!(error.to_string().contains("noise of its own"), "{error}");
    }

    /// A run from before the key can be resumed.
    #[test]
    fn a_key_that_is_off_is_absent() {
        let entries = |config: Config| {
            let entries = config.entries().into_iter();
            entries
                .map(|(key, _)| key.path())
                .any(|key| key == super::SHARE_PREFIX)
        };
        assert!(!entries(with(&[]).unwrap()));
        assert!(entries(with(&["packing.share_prefix=true"]).unwrap()));
    }
}
