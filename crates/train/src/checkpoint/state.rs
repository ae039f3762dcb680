//! Progress and settings of a run: everything in a checkpoint except tensors.

use super::CheckpointError;
use crate::{
    Evaluation,
    config::{Config, KEYS, OnResume},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, fs, path::Path};

pub(super) const FILE: &str = "state.json";

/// Contents of `state.json`. Order and dropout follow from seed and step, so it has no state of a
/// random generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Number of optimizer steps done.
    pub step: u64,
    /// Planned number of steps, on which the learning rates depended.
    pub total_steps: u64,
    /// Number of real tokens so far.
    pub tokens: u64,
    /// Number of these tokens that were trained.
    pub trained_tokens: u64,
    /// Number of padding tokens computed so far.
    pub padding_tokens: u64,
    /// Seconds of training so far, over all parts of the run.
    pub elapsed_s: f64,
    /// Loss of the first step.
    pub first_loss: Option<f64>,
    /// Loss of the last step.
    pub last_loss: Option<f64>,
    /// Evaluation before the first step.
    pub evaluation_before: Option<Evaluation>,
    /// Last evaluation.
    pub evaluation: Option<Evaluation>,
    /// Step of the last evaluation.
    pub evaluated_step: Option<u64>,
    /// Lowest evaluation loss after a step of training.
    pub best_loss: Option<f64>,
    /// Step of the lowest evaluation loss.
    pub best_step: Option<u64>,
    /// Number of later evaluations without a lower loss.
    pub evaluations_without_gain: u64,
    /// Facts that must stay the same for the result to stay the same.
    pub identity: Identity,
}

/// Facts that decide the result of a run, apart from its length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(BTreeMap<String, Value>);

/// A difference between a run and its continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Path of a key, or name of another fact.
    pub key: String,
    /// Old value; `None` = absent.
    pub old: Option<Value>,
    /// New value; `None` = absent.
    pub new: Option<Value>,
}

impl State {
    /// Forgets losses, so that later ones are not compared with them.
    pub(crate) fn forget_losses(&mut self) {
        self.first_loss = None;
        self.evaluation_before = None;
        self.best_loss = None;
        self.best_step = None;
        self.evaluations_without_gain = 0;
    }
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
    /// Collects every fixed key of the configuration, and `facts` about its inputs, such as digests
    /// of the data.
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

    /// Lists the differences in `new`, in the order of the configuration.
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
    /// State before the first step.
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
