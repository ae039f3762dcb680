//! `metrics.jsonl`: one object per optimizer step, and one per evaluation.

use crate::{Evaluation, TrainError, files::at, objective::Rewards};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

pub(crate) const FILE: &str = "metrics.jsonl";

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Number of the step, counted from 1.
    pub step: u64,
    /// Loss of the step, before the update: for cross-entropy the mean over its trained tokens.
    pub loss: f64,
    /// Rewards of answers, if they are compared or judged.
    #[serde(flatten)]
    pub rewards: Rewards,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Number of real tokens of this step.
    pub tokens: u64,
    /// Number of these tokens that have a target.
    pub trained_tokens: u64,
    /// Number of padding tokens computed in addition.
    pub padding_tokens: u64,
    /// Real tokens over the time of this step.
    pub tokens_per_second: f64,
    /// Seconds of training so far, over all parts of the run.
    pub elapsed_s: f64,
    /// Peak memory of the GPU, or of the process; null if the system does not report it.
    pub peak_memory_bytes: Option<u64>,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Number of the optimizer step before the evaluation; 0: before the first step.
    pub step: u64,
    /// Loss of the evaluation data: for cross-entropy the mean over its trained tokens.
    pub eval_loss: f64,
    /// Exponential of `eval_loss`; absent if answers are compared or judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_perplexity: Option<f64>,
    /// Rewards of answers, if they are compared or judged, with names that begin with `eval_`.
    #[serde(flatten, with = "eval_rewards")]
    pub rewards: Rewards,
    /// Number of real tokens evaluated.
    pub eval_tokens: u64,
    /// Number of these tokens that have a target.
    pub eval_trained_tokens: u64,
    /// Evaluation of each set by its name, if the data has sets with names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub eval_sets: BTreeMap<String, Evaluation>,
    /// Seconds of training so far.
    pub elapsed_s: f64,
}

/// [`Rewards`] under names that begin with `eval_`.
mod eval_rewards {
    use super::Rewards;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Rewards")]
    struct Named {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(rename = "eval_rewards_chosen")]
        rewards_chosen: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(rename = "eval_rewards_rejected")]
        rewards_rejected: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(rename = "eval_rewards_margin")]
        rewards_margin: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(rename = "eval_rewards_accuracy")]
        rewards_accuracy: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(rename = "eval_kl")]
        kl: Option<f64>,
    }

    pub(super) fn serialize<S: Serializer>(
        rewards: &Rewards,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Named::serialize(rewards, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Rewards, D::Error> {
        Named::deserialize(deserializer)
    }
}

/// The open file.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Path of the file in an output folder.
    pub fn path(output: &Path) -> PathBuf {
        output.join(FILE)
    }

    /// Opens the file to continue after `step`: it removes rows that the checkpoint does not know
    /// (later steps, evaluations after `evaluated_step`, a last line that was cut off), all at
    /// once.
    pub fn open(output: &Path, step: u64, evaluated_step: Option<u64>) -> Result<Self, TrainError> {
        let path = Self::path(output);
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            let known = |line: &&str| {
                serde_json::from_str::<Known>(line).is_ok_and(|row| match row.eval_loss {
                    None => row.step <= step,
                    Some(_) => evaluated_step.is_some_and(|evaluated| row.step <= evaluated),
                })
            };
            let kept: String = text
                .lines()
                .filter(known)
                .flat_map(|line| [line, "\n"])
                .collect();
            if kept != text {
                tightrope_formats::files::write(&path, kept.as_bytes()).map_err(at(&path))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self {
            file: file.map_err(at(&path))?,
            path,
        })
    }

    /// Appends a row, in one write.
    pub fn write(&mut self, row: &impl Serialize) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(row).map_err(|error| TrainError::Io {
            path: self.path.clone(),
            source: error.into(),
        })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(at(&self.path))
    }

    /// Makes the rows durable, before a checkpoint that relies on them.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_all().map_err(at(&self.path))
    }
}

/// Fields that distinguish rows.
#[derive(Deserialize)]
struct Known {
    step: u64,
    eval_loss: Option<f64>,
}

/// Peak memory of this process (`VmHWM`), if the system reports it.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_after_the_checkpoint_and_half_lines_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(folder.path(), 0, None).unwrap();
        for step in 1..=4 {
            metrics
                .write(&serde_json::json!({"step": step, "loss": 1.5}))
                .unwrap();
            if step % 2 == 0 {
                metrics
                    .write(&serde_json::json!({"step": step, "eval_loss": 2.0}))
                    .unwrap();
            }
        }
        metrics.file.write_all(b"{\"step\":3,\"lo").unwrap();
        drop(metrics);
        let read = || fs::read_to_string(Metrics::path(folder.path())).unwrap();

        let mut metrics = Metrics::open(folder.path(), 4, Some(2)).unwrap();
        assert_eq!(
            read().lines().count(),
            5,
            "the evaluation of step 4 is not known: {}",
            read()
        );
        metrics
            .write(&serde_json::json!({"step": 5, "loss": 1.0}))
            .unwrap();
        assert_eq!(read().lines().count(), 6);
        let mut metrics = Metrics::open(folder.path(), 2, Some(2)).unwrap();
        let expected = "{\"step\":1,\"loss\":1.5}\n{\"step\":2,\"loss\":1.5}\n{\"step\":2,\"eval_loss\":2.0}\n";
        assert_eq!(read(), expected);
        // An evaluation before the first step is known or unknown like any other.
        metrics
            .write(&serde_json::json!({"step": 0, "eval_loss": 3.0}))
            .unwrap();
        Metrics::open(folder.path(), 0, Some(0)).unwrap();
        assert_eq!(read(), "{\"step\":0,\"eval_loss\":3.0}\n");
        Metrics::open(folder.path(), 0, None).unwrap();
        assert_eq!(read(), "");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_of_memory_is_known() {
        let megabyte = peak_memory_bytes().unwrap();
        assert!(megabyte > 1 << 20, "{megabyte}");
    }
}
