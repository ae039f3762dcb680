//! Report at the end of a run.

use crate::objective::Rewards;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Reason why a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every step is done.
    Finished,
    /// The evaluation loss no longer fell.
    StoppedEarly,
    /// A signal, or the user, stopped the run; the same command with `--resume` continues it.
    Stopped {
        /// Number of the last step done.
        step: u64,
        /// Checkpoint that the run continues from.
        checkpoint: PathBuf,
    },
}

/// Numbers of the whole run. Sums are over all parts of a run that was resumed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// Reason why the run ended.
    pub outcome: Outcome,
    /// Number of optimizer steps.
    pub steps: u64,
    /// Number of these steps done before this part of the run; all of them if nothing was left to
    /// do.
    pub first_step: u64,
    /// Number of real tokens.
    pub tokens: u64,
    /// Number of these tokens that were trained.
    pub trained_tokens: u64,
    /// Number of padding tokens computed.
    pub padding_tokens: u64,
    /// Cost of the same data under each kind of batching.
    pub padding: Padding,
    /// Seconds of training.
    pub elapsed_s: f64,
    /// Real tokens divided by these seconds.
    pub tokens_per_second: f64,
    /// Loss of the first step, even if this part of the run began later.
    pub first_loss: Option<f64>,
    /// Loss of the last step.
    pub last_loss: Option<f64>,
    /// Evaluation before the first step.
    pub evaluation_before: Option<Evaluation>,
    /// Last evaluation.
    pub evaluation: Option<Evaluation>,
    /// Lowest evaluation loss after a step of training, and its step.
    pub best: Option<(f64, u64)>,
    /// Peak memory of the GPU, or of the process.
    pub peak_memory_bytes: Option<u64>,
    /// Newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Checkpoint with the lowest evaluation loss.
    pub best_checkpoint: Option<PathBuf>,
    /// Trained weights: a PEFT adapter or a Hugging Face folder.
    pub weights: PathBuf,
    /// Step of the weights: the last, or the best if `run.result` says so.
    pub weights_step: u64,
}

/// Cost of one epoch as batched, and the cost of padding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Padding {
    /// Number of real tokens in an epoch.
    pub tokens: u64,
    /// Number of tokens computed as configured.
    pub computed_tokens: u64,
    /// Number of sequences in the batches of the comparison: as many as share a pass here.
    pub batch_size: u32,
    /// Number of tokens computed if batches of this size were padded to their longest sequence.
    pub padded_tokens: u64,
    /// The same number, if each batch had sequences of similar length.
    pub bucketed_tokens: u64,
}

impl Padding {
    /// Number of tokens of padded batches, relative to the tokens computed as configured.
    pub fn factor(&self) -> f64 {
        self.padded_tokens as f64 / self.computed_tokens.max(1) as f64
    }
}

/// Quality of a model's predictions on some data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Loss of the objective: for cross-entropy the mean over the tokens with a target.
    pub loss: f64,
    /// Exponential of a cross-entropy; absent if answers are compared or judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Rewards of answers, if they are compared or judged.
    #[serde(flatten)]
    pub rewards: Rewards,
    /// Number of real tokens.
    pub tokens: u64,
    /// Number of these tokens that have a target.
    pub trained_tokens: u64,
    /// Evaluation of each set by its name, if the data has sets with names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, Evaluation>,
}
