//! The section `[objective]`.

use super::{ConfigError, Place, read::Values};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use toml::Value;

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
    pub reference: Option<Reference>,
}

/// Model that dpo and ipo compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum Reference {
    Start,
    Base,
}

impl ObjectiveSection {
    /// Returns an error unless data with (or without) pairs of answers is what the objective needs.
    pub fn check_kind(&self, data: &str, pairs: bool) -> Result<(), TrainError> {
        let kind = self.kind.name();
        match pairs == self.kind.compares() {
            true => Ok(()),
            false => Err(TrainError::OtherData {
                data: data.to_owned(),
                pairs,
                kind,
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
}

impl ObjectiveKind {
    /// Names in configurations.
    pub(super) const NAMES: &'static [&'static str] =
        &["cross-entropy", "dpo", "ipo", "simpo", "cpo", "orpo"];

    /// Name in configurations.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn of(name: &str) -> Option<Self> {
        let all = [
            Self::CrossEntropy,
            Self::Dpo,
            Self::Ipo,
            Self::Simpo,
            Self::Cpo,
            Self::Orpo,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it compares pairs of answers.
    pub fn compares(self) -> bool {
        self != Self::CrossEntropy
    }

    /// Whether it compares with a reference model.
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Dpo | Self::Ipo)
    }

    /// Whether log-probabilities are means over the tokens of an answer.
    pub(crate) fn averages(self) -> bool {
        matches!(self, Self::Ipo | Self::Simpo | Self::Orpo)
    }

    /// Keys beside `kind`, with their defaults, which are those of TRL.
    fn defaults(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::CrossEntropy => &[],
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
        }
    }
}

/// Kind of the objective that the values name.
pub(super) fn kind(values: &Values) -> ObjectiveKind {
    let name = values.get("objective.kind").and_then(Value::as_str);
    name.and_then(ObjectiveKind::of).unwrap_or_default()
}

/// Defaults of the keys that the kind reads; refuses those that it does not read.
pub(super) fn derived(
    values: &Values,
    start: impl Fn() -> Place,
) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let kind = kind(values);
    let defaults = kind.defaults();
    for key in [
        "objective.beta",
        "objective.gamma",
        "objective.label_smoothing",
        "objective.cross_entropy",
    ] {
        let read = defaults.iter().any(|(name, _)| *name == key);
        if let Some(place) = values.place(key).filter(|_| !read) {
            let message = format!(
                "`{key}` has no meaning with `objective.kind` = \"{}\"; set another kind, or remove it",
                kind.name()
            );
            let place = place.clone();
            return Err(ConfigError::Conflict { place, message });
        }
    }
    let reference = "objective.reference";
    if let Some(place) = values.place(reference).filter(|_| !kind.has_reference()) {
        let message = format!(
            "`{reference}` has no meaning with `objective.kind` = \"{}\", which has no reference \
             model; remove it",
            kind.name()
        );
        let place = place.clone();
        return Err(ConfigError::Conflict { place, message });
    }
    let words = [
        ("data.train_on", "completion", "answers are compared whole"),
        (
            "data.overlong",
            "split",
            "a pair of answers cannot be split",
        ),
        ("packing.mode", "wrapped", "a pair of answers cannot be cut"),
    ];
    for (key, word, why) in words.into_iter().filter(|_| kind.compares()) {
        let is = values.get(key).and_then(Value::as_str);
        // The first is the only allowed value, the others are the only refused ones.
        let wrong = is.is_some_and(|is| (is == word) != (key == "data.train_on"));
        if wrong {
            let message = format!(
                "`{key}` = \"{}\" does not go with `objective.kind` = \"{}\": {why}",
                is.unwrap_or_default(),
                kind.name()
            );
            let place = values.place(key).cloned().unwrap_or_else(&start);
            return Err(ConfigError::Conflict { place, message });
        }
    }
    let derived = defaults
        .iter()
        .map(|(key, value)| (*key, Value::Float(*value)));
    let start = || (reference, Value::String("start".into()));
    Ok(derived.chain(kind.has_reference().then(start)).collect())
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
                &["objective.kind=dpo", "data.train_on=all"],
                "compared whole",
            ),
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
        ] {
            let error = with(sets).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(with(&["objective.kind=dpo", "data.train_on=completion"]).is_ok());
    }
}
