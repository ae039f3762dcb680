//! What a run tells at its end.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every step is done.
    Finished,
    /// The evaluation loss no longer fell.
    StoppedEarly,
    /// Somebody asked; the same command with `--resume` goes on.
    Stopped {
        /// The last step done.
        step: u64,
        /// What it goes on from.
        checkpoint: PathBuf,
    },
}

/// The whole run in numbers. Sums are over all parts of a run that was resumed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// Why it ended.
    pub outcome: Outcome,
    /// Optimizer steps.
    pub steps: u64,
    /// Of these, done before this part of the run; all of them if there was nothing left to do.
    pub first_step: u64,
    /// Real tokens.
    pub tokens: u64,
    /// Of these, trained.
    pub trained_tokens: u64,
    /// Padding computed.
    pub padding_tokens: u64,
    /// What the same data costs in each way of batching.
    pub padding: Padding,
    /// Seconds of training.
    pub elapsed_s: f64,
    /// Real tokens over these seconds.
    pub tokens_per_second: f64,
    /// Loss of the first step, also where this part of the run began later.
    pub first_loss: Option<f64>,
    /// Loss of the last step.
    pub last_loss: Option<f64>,
    /// How well the model predicted before the first step.
    pub evaluation_before: Option<Evaluation>,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// The lowest evaluation loss after a step of training, and its step.
    pub best: Option<(f64, u64)>,
    /// Most memory that was ever used: of the GPU, or of the process.
    pub peak_memory_bytes: Option<u64>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The checkpoint with the lowest evaluation loss.
    pub best_checkpoint: Option<PathBuf>,
    /// The trained weights: a PEFT adapter or a Hugging Face folder.
    pub weights: PathBuf,
    /// The step that they are of: the last, or the best where `run.result` says so.
    pub weights_step: u64,
}

/// What one epoch costs as it was batched, and what padding would cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Padding {
    /// Real tokens of an epoch.
    pub tokens: u64,
    /// Tokens computed as configured.
    pub computed_tokens: u64,
    /// Sequences in the batches compared with: as many as share a pass here.
    pub batch_size: u32,
    /// Tokens computed if batches of that many sequences were padded to their longest.
    pub padded_tokens: u64,
    /// The same with sequences of like length together.
    pub bucketed_tokens: u64,
}

impl Padding {
    /// How many times as many tokens padded batches compute.
    pub fn factor(&self) -> f64 {
        self.padded_tokens as f64 / self.computed_tokens.max(1) as f64
    }
}

/// How well a model predicts some data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy over the tokens with a target.
    pub loss: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Real tokens.
    pub tokens: u64,
    /// Of these, tokens with a target.
    pub trained_tokens: u64,
}
