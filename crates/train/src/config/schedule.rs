//! The section `[schedule]`.

use super::{
    ConfigError,
    kinds::{self, Kind, Preset},
    read::Values,
};
use serde::{Deserialize, Serialize};
use toml::Value;

/// `[schedule]`; either `warmup_steps` or `warmup_ratio` is present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct ScheduleSection {
    #[serde(flatten)]
    pub kind: ScheduleKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
}

/// Shape of the learning rate after the warm-up, with the settings that only it has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum ScheduleKind {
    Cosine {
        min_ratio: f64,
    },
    Linear {
        min_ratio: f64,
    },
    Constant,
    /// Either `decay_steps` or `decay_ratio` is present.
    Wsd {
        #[serde(skip_serializing_if = "Option::is_none")]
        decay_steps: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        decay_ratio: Option<f64>,
        decay_shape: DecayShape,
        min_ratio: f64,
    },
    InverseSqrt {
        #[serde(skip_serializing_if = "Option::is_none")]
        timescale: Option<u64>,
    },
    CosineRestarts {
        cycles: u64,
        min_ratio: f64,
    },
    Polynomial {
        power: f64,
        min_ratio: f64,
    },
}

/// Shape of the decay at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum DecayShape {
    Linear,
    Cosine,
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

use Preset::{Absent, Integer, Number, Word};

const MIN_RATIO: (&str, Preset) = ("schedule.min_ratio", Number(0.0));

const KINDS: [Kind; 7] = [
    Kind {
        name: "cosine",
        reads: &[MIN_RATIO],
    },
    Kind {
        name: "linear",
        reads: &[MIN_RATIO],
    },
    Kind {
        name: "constant",
        reads: &[],
    },
    Kind {
        name: "wsd",
        reads: &[
            ("schedule.decay_steps", Absent),
            ("schedule.decay_ratio", Number(0.1)),
            ("schedule.decay_shape", Word("cosine")),
            MIN_RATIO,
        ],
    },
    Kind {
        name: "inverse-sqrt",
        reads: &[("schedule.timescale", Absent)],
    },
    Kind {
        name: "cosine-restarts",
        reads: &[("schedule.cycles", Integer(1)), MIN_RATIO],
    },
    Kind {
        name: "polynomial",
        reads: &[("schedule.power", Number(1.0)), MIN_RATIO],
    },
];

/// Names of the kinds.
pub(super) const NAMES: [&str; KINDS.len()] = kinds::names(&KINDS);

/// Keys that every kind reads.
const ALWAYS: [&str; 2] = ["schedule.warmup_steps", "schedule.warmup_ratio"];

/// Defaults of the keys that the kind reads; refuses those that it does not read. `usual`: the kind
/// if none is written.
pub(super) fn derived(
    values: &Values,
    usual: Option<&str>,
) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let usual = KINDS.iter().find(|kind| Some(kind.name) == usual);
    let kind = kinds::kind(values, "schedule", &KINDS, usual.unwrap_or(&KINDS[0]));
    kinds::derived(values, "schedule", kind, &ALWAYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, config::KEYS};
    use std::path::Path;

    fn with(sets: &[&str]) -> Result<Config, ConfigError> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::parse("model = \"a/b\"", Path::new("my.toml"), &sets)
    }

    #[test]
    fn a_kind_reads_its_own_keys_with_its_own_defaults() {
        let kind = |sets: &[&str]| with(sets).unwrap().schedule.kind;
        assert_eq!(kind(&[]), ScheduleKind::Cosine { min_ratio: 0.0 });
        let wsd = |decay_steps, decay_ratio| ScheduleKind::Wsd {
            decay_steps,
            decay_ratio,
            decay_shape: DecayShape::Cosine,
            min_ratio: 0.0,
        };
        assert_eq!(kind(&["schedule.kind=wsd"]), wsd(None, Some(0.1)));
        let steps = kind(&["schedule.kind=wsd", "schedule.decay_steps=5"]);
        assert_eq!(steps, wsd(Some(5), None));
        for kind in NAMES {
            let config = with(&[&format!("schedule.kind={kind}")]).unwrap();
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        }
        for key in KEYS.iter().filter(|key| key.section == "schedule") {
            let path = key.path();
            let read = |kind: &Kind| kind.reads.iter().any(|(read, _)| *read == path);
            let always = ALWAYS.contains(&&*path) || path == "schedule.kind";
            assert!(always || KINDS.iter().any(read), "{path}");
        }
    }

    #[test]
    fn what_a_kind_does_not_read_is_refused() {
        for (sets, says) in [
            (
                &["schedule.kind=constant", "schedule.min_ratio=0.1"][..],
                "`schedule.min_ratio` has no meaning with `schedule.kind` = \"constant\"",
            ),
            (&["schedule.cycles=2"], "`schedule.cycles`"),
            (
                &["schedule.kind=wsd", "schedule.power=2"],
                "`schedule.power`",
            ),
            (
                &[
                    "schedule.kind=wsd",
                    "schedule.decay_steps=2",
                    "schedule.decay_ratio=0.2",
                ],
                "remove one",
            ),
            (
                &[
                    "schedule.kind=wsd",
                    "schedule.warmup_ratio=0.6",
                    "schedule.decay_ratio=0.5",
                ],
                "more than the whole run",
            ),
        ] {
            let error = with(sets).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
