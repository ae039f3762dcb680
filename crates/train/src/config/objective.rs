//! The section `[objective]`.

use super::{ConfigError, kinds, read::Values};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use tightrope_data::ExampleKind;
use tightrope_model::{HeadKind, ModelConfig};
use tightrope_packing::Algorithm;
use toml::Value;

const REFERENCE: &str = "objective.reference";
const CONVENTION: &str = "objective.convention";

/// `[objective]`; the keys that the kind does not read are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct ObjectiveSection {
    pub kind: ObjectiveKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desirable_weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undesirable_weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub center_rewards_coefficient: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convention: Option<Convention>,
}

/// Whose formula counts where TRL and a paper differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum Convention {
    Trl,
    Paper,
}

/// Model that dpo, ipo and kto compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum Reference {
    Start,
    Base,
}

impl ObjectiveSection {
    /// Returns an error unless the examples of `data` are of the kind that the objective needs.
    pub fn check_kind(&self, data: &str, found: ExampleKind) -> Result<(), TrainError> {
        match found == self.kind.data() {
            true => Ok(()),
            false => Err(TrainError::OtherData {
                data: data.to_owned(),
                found,
                objective: self.kind,
            }),
        }
    }
}

impl ObjectiveSection {
    /// Returns an error if the model has a head that the objective cannot use.
    pub fn check_model(&self, model: &ModelConfig) -> Result<(), TrainError> {
        let scores = model.architecture().head == HeadKind::Score;
        match scores && !self.kind.scores() {
            false => Ok(()),
            true => Err(TrainError::OtherHead {
                objective: self.kind,
            }),
        }
    }
}

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum ObjectiveKind {
    #[default]
    CrossEntropy,
    Dpo,
    Ipo,
    Simpo,
    Cpo,
    Orpo,
    Kto,
    Dft,
    Reward,
}

impl ObjectiveKind {
    /// Names in configurations.
    pub(super) const NAMES: &'static [&'static str] = &[
        "cross-entropy",
        "dpo",
        "ipo",
        "simpo",
        "cpo",
        "orpo",
        "kto",
        "dft",
        "reward",
    ];

    /// Name in configurations.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Kind of the examples that it trains on.
    pub fn data(self) -> ExampleKind {
        match self {
            Self::CrossEntropy | Self::Dft => ExampleKind::Sequences,
            Self::Kto => ExampleKind::Labelled,
            Self::Dpo | Self::Ipo | Self::Simpo | Self::Cpo | Self::Orpo | Self::Reward => {
                ExampleKind::Pairs
            }
        }
    }

    /// Whether it compares pairs of answers.
    pub fn compares(self) -> bool {
        self.data() == ExampleKind::Pairs
    }

    /// Whether it trains a head that scores sequences.
    pub fn scores(self) -> bool {
        self == Self::Reward
    }

    /// Whether it compares with a reference model.
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Dpo | Self::Ipo | Self::Kto)
    }

    /// Whether TRL and the paper differ.
    fn has_conventions(self) -> bool {
        matches!(self, Self::Dpo | Self::Ipo | Self::Cpo | Self::Orpo)
    }

    /// Keys beside `kind`, with their defaults, which are those of TRL.
    fn defaults(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::CrossEntropy | Self::Dft => &[],
            Self::Kto => &[
                ("objective.beta", 0.1),
                ("objective.desirable_weight", 1.0),
                ("objective.undesirable_weight", 1.0),
            ],
            Self::Dpo => &[
                ("objective.beta", 0.1),
                ("objective.label_smoothing", 0.0),
                ("objective.cross_entropy", 0.0),
            ],
            Self::Ipo => &[("objective.beta", 0.1), ("objective.cross_entropy", 0.0)],
            Self::Simpo => &[
                ("objective.beta", 2.0),
                ("objective.gamma", 0.5),
                ("objective.label_smoothing", 0.0),
                ("objective.cross_entropy", 0.0),
            ],
            Self::Cpo => &[
                ("objective.beta", 0.1),
                ("objective.label_smoothing", 0.0),
                ("objective.cross_entropy", 1.0),
            ],
            Self::Orpo => &[("objective.beta", 0.1), ("objective.cross_entropy", 1.0)],
            Self::Reward => &[("objective.center_rewards_coefficient", 0.0)],
        }
    }
}

/// Kind of the objective that the values name.
pub(super) fn kind(values: &Values) -> ObjectiveKind {
    let kind = values.get("objective.kind").cloned();
    kind.and_then(|kind| kind.try_into().ok())
        .unwrap_or_default()
}

/// A setting that answers exclude which are compared or judged.
struct Excluded {
    key: &'static str,
    /// Whether they exclude this value.
    excludes: fn(&str) -> bool,
    why: &'static str,
}

const EXCLUDED: [Excluded; 3] = [
    Excluded {
        key: "data.train_on",
        excludes: |word| word != "completion",
        why: "answers are judged whole",
    },
    Excluded {
        key: "data.overlong",
        excludes: |word| word == "split",
        why: "the answers cannot be split",
    },
    Excluded {
        key: "packing.mode",
        excludes: |word| word.parse().is_ok_and(Algorithm::cuts_sequences),
        why: "the answers cannot be cut",
    },
];

/// Defaults of the keys that the kind reads; refuses those that it does not read, and settings that
/// do not go with it.
pub(super) fn derived(values: &Values) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let kind = kind(values);
    let numbers = kind.defaults().iter();
    let numbers = numbers.map(|(key, value)| (*key, Value::Float(*value)));
    let reference = (REFERENCE, Value::String("start".into()));
    let convention = (CONVENTION, Value::String("trl".into()));
    let defaults: Vec<_> = numbers
        .chain(kind.has_reference().then_some(reference))
        .chain(kind.has_conventions().then_some(convention))
        .collect();
    let name = kind.name();
    let reads = |key: &str| defaults.iter().any(|(read, _)| *read == key);
    let why = |key: &str| match key {
        REFERENCE => ", which has no reference model",
        CONVENTION => ", which has one formula",
        _ => "",
    };
    kinds::refuse_unread(values, "objective", name, reads, why)?;
    let judges = kind.data() != ExampleKind::Sequences;
    for Excluded { key, excludes, why } in EXCLUDED.iter().filter(|_| judges) {
        let word = values.get(key).and_then(Value::as_str);
        if let Some(word) = word.filter(|word| excludes(word)) {
            kinds::refuse(values, key, || {
                format!(
                    "`{key}` = \"{word}\" does not go with `objective.kind` = \"{name}\": {why}"
                )
            })?;
        }
    }
    Ok(defaults)
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
    fn an_objective_reads_its_own_keys_only() {
        let config = with(&["objective.kind=simpo", "objective.gamma=1"]).unwrap();
        let objective = config.objective;
        assert_eq!((objective.beta, objective.gamma), (Some(2.0), Some(1.0)));
        assert_eq!(
            (objective.label_smoothing, objective.reference),
            (Some(0.0), None)
        );
        assert_eq!(
            (config.packing.capacity, config.data.max_length),
            (2048, 1024)
        );
        let lengths = with(&["objective.kind=dpo", "data.max_length=3000"]).unwrap();
        assert_eq!(lengths.packing.capacity, 6000);
        for (sets, says) in [
            (
                &["objective.beta=0.1"][..],
                "`objective.beta` has no meaning with",
            ),
            (
                &["objective.kind=dpo", "objective.gamma=1"],
                "`objective.gamma`",
            ),
            (
                &["objective.kind=cpo", "objective.reference=base"],
                "no reference model",
            ),
            (
                &["objective.kind=simpo", "objective.convention=paper"],
                "one formula",
            ),
            (&["objective.kind=dpo", "data.train_on=all"], "judged whole"),
            (
                &["objective.kind=dpo", "data.overlong=split"],
                "cannot be split",
            ),
            (
                &["objective.kind=dpo", "packing.mode=wrapped"],
                "cannot be cut",
            ),
            (
                &[
                    "objective.kind=dpo",
                    "packing.capacity=64",
                    "data.max_length=64",
                ],
                "pairs of answers of up to `data.max_length` = 64",
            ),
            (
                &[
                    "objective.kind=kto",
                    "objective.desirable_weight=0",
                    "objective.undesirable_weight=0",
                ],
                "train nothing",
            ),
        ] {
            let error = with(sets).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(with(&["objective.kind=dpo", "data.train_on=completion"]).is_ok());
    }
}
