//! Where a run stands, and what it was told: all of a checkpoint that is not tensors.

use super::CheckpointError;
use crate::{
    Evaluation,
    config::{Config, KEYS, OnResume},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, fs, path::Path};

pub(super) const FILE: &str = "state.json";

/// `state.json`. Order and dropout follow from seed and step, so no state of a random generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Steps that the run was to have, on which the learning rates depended.
    pub total_steps: u64,
    /// Real tokens seen so far.
    pub tokens: u64,
    /// Of these, trained.
    pub trained_tokens: u64,
    /// Padding computed so far.
    pub padding_tokens: u64,
    /// Seconds of training so far, all parts of the run together.
    pub elapsed_s: f64,
    /// Loss of the first step.
    pub first_loss: Option<f64>,
    /// Loss of the last step.
    pub last_loss: Option<f64>,
    /// How well the model predicted before the first step.
    pub evaluation_before: Option<Evaluation>,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// The step of the last evaluation.
    pub evaluated_step: Option<u64>,
    /// The lowest evaluation loss after a step of training.
    pub best_loss: Option<f64>,
    /// The step that it belongs to.
    pub best_step: Option<u64>,
    /// Evaluations since without a better one.
    pub evaluations_without_gain: u64,
    /// What must stay the same for the result to stay the same.
    pub identity: Identity,
}

/// What decides the result of a run, apart from its length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(BTreeMap<String, Value>);

/// A difference between a run and its continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The path of a key, or what else has changed.
    pub key: String,
    /// Before; `None` = absent.
    pub old: Option<Value>,
    /// Now.
    pub new: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            Some(value) => value.to_string(),
            None => "absent".into(),
        };
        write!(
            f,
            "{}: {} -> {}",
            self.key,
            shown(&self.old),
            shown(&self.new)
        )
    }
}

impl Identity {
    /// Every fixed key of the configuration, and `facts`: what it refers to, such as digests of the
    /// data.
    pub fn new(config: &Config, facts: &[(&str, Value)]) -> Self {
        let fixed = config.entries().into_iter();
        let fixed = fixed.filter(|(key, _)| key.on_resume == OnResume::Fixed);
        let facts = facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self(
            fixed
                .map(|(key, value)| (key.path(), value))
                .chain(facts)
                .collect(),
        )
    }

    /// What is different in `new`, in the order of the configuration.
    pub fn changes(&self, new: &Identity) -> Vec<Change> {
        let mut names: Vec<&String> = self.0.keys().chain(new.0.keys()).collect();
        let place = |name: &str| KEYS.iter().position(|key| key.path() == name);
        names.sort_by_key(|name| (place(name).unwrap_or(KEYS.len()), *name));
        names.dedup();
        let change = |name: &String| Change {
            key: name.clone(),
            old: self.0.get(name).cloned(),
            new: new.0.get(name).cloned(),
        };
        names
            .into_iter()
            .map(change)
            .filter(|change| change.old != change.new)
            .collect()
    }
}

impl State {
    /// Before the first step.
    pub fn new(identity: Identity) -> Self {
        Self {
            step: 0,
            total_steps: 0,
            tokens: 0,
            trained_tokens: 0,
            padding_tokens: 0,
            elapsed_s: 0.0,
            first_loss: None,
            last_loss: None,
            evaluation_before: None,
            evaluation: None,
            evaluated_step: None,
            best_loss: None,
            best_step: None,
            evaluations_without_gain: 0,
            identity,
        }
    }

    pub(super) fn read(checkpoint: &Path) -> Result<Self, CheckpointError> {
        let path = checkpoint.join(FILE);
        let text = fs::read(&path).map_err(|error| CheckpointError::Damaged {
            path: checkpoint.to_owned(),
            reason: format!("{FILE}: {error}"),
        })?;
        serde_json::from_slice(&text).map_err(CheckpointError::json(&path))
    }

    pub(crate) fn write(&self, checkpoint: &Path) -> Result<(), crate::TrainError> {
        let path = checkpoint.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(CheckpointError::json(&path))?;
        fs::write(&path, text).map_err(crate::files::at(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(sets: &[&str], data: &str) -> Identity {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        let config = Config::parse("model = \"a/b\"", Path::new("c.toml"), &sets).unwrap();
        Identity::new(&config, &[("training data", json!(data))])
    }

    #[test]
    fn what_changes_the_result_is_shown_old_and_new() {
        let old = identity(&[], "a");
        let shown = |sets: &[&str], data: &str| -> Vec<String> {
            old.changes(&identity(sets, data))
                .iter()
                .map(Change::to_string)
                .collect()
        };
        let free = [
            "run.max_steps=9",
            "run.save_every=1",
            "output=x",
            "run.recompute=true",
        ];
        assert!(shown(&free, "a").is_empty());
        assert_eq!(shown(&["seed=1"], "a"), ["seed: 42 -> 1"]);
        assert_eq!(shown(&[], "b"), ["training data: \"a\" -> \"b\""]);
        let added = shown(&["packing.max_sequences=3", "optimizer.eps=1e-6"], "a");
        assert_eq!(
            added,
            [
                "packing.max_sequences: absent -> 3",
                "optimizer.eps: 1e-8 -> 1e-6"
            ]
        );
    }
}
