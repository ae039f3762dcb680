//! Reports events of a run to an observer.

use crate::{EvalRow, StatePlan, StepRow, config::LoraSection};
use std::path::{Path, PathBuf};
use tightrope_data::{Preflight, Progress};

/// Plan of a run, known before its first step.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Plan {
    /// Initial model, as configured.
    pub model: String,
    /// Name of the objective.
    pub objective: &'static str,
    /// Device that computes.
    pub device: String,
    /// Type of activations.
    pub precision: &'static str,
    /// Number of parameters of the model, an adapter included.
    pub parameters: u64,
    /// Adapter that is trained; absent if every weight is trained.
    pub adapter: Option<AdapterPlan>,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Number of trained parameters.
    pub trained_parameters: u64,
    /// State of the optimizer for these parameters.
    pub optimizer: Vec<StatePlan>,
    /// Number of sequences to train on.
    pub sequences: u64,
    /// Largest number of tokens in a pack, or in a sequence of a batch.
    pub capacity: u64,
    /// Number of packs (or rows of padded batches) in an epoch.
    pub packs: u64,
    /// What `packs` counts: `pack`, or `row`.
    pub row: &'static str,
    /// Number of real tokens in an epoch; a shared beginning counts once.
    pub tokens_per_epoch: u64,
    /// Number of further tokens in an epoch that are not computed, because sequences share their
    /// beginnings; absent if they do not.
    pub shared_tokens_per_epoch: Option<u64>,
    /// Number of steps done in an earlier part of the run.
    pub first_step: u64,
    /// Number of steps at the end of the run.
    pub total_steps: u64,
    /// Number of optimizer steps in an epoch.
    pub steps_per_epoch: u64,
    /// What a step takes: `sequence`, or `pair` of answers.
    pub example: &'static str,
    /// Number of examples in a step of the first epoch: a mean.
    pub examples_per_step: f64,
    /// Number of trained tokens in a step: a mean.
    pub trained_tokens_per_step: f64,
    /// Number of steps in an epoch if a step took eight examples and not packs.
    pub steps_of_eight: u64,
}

/// Adapter that a run trains.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct AdapterPlan {
    /// Adapter that the run starts from, whose files then give rank, scale and modules.
    pub from: Option<PathBuf>,
    /// Settings as configured.
    #[serde(flatten)]
    pub section: LoraSection,
}

/// Gets all events of a run; draws bars, prints JSON, or does nothing. Progress of loading comes
/// through [`Progress`].
pub trait Observer: Progress {
    /// Files of records have been read.
    fn loaded(&self, _paths: &[PathBuf], _report: &Preflight) {}
    /// All input has been read; the first step comes next.
    fn planned(&self, _plan: &Plan) {}
    /// An optimizer step is done.
    fn stepped(&self, _row: &StepRow) {}
    /// An evaluation is done.
    fn evaluated(&self, _row: &EvalRow) {}
    /// A checkpoint is whole.
    fn saved(&self, _step: u64, _checkpoint: &Path) {}
    /// A message for the user.
    fn notice(&self, _text: &str) {}
}

impl Observer for () {}
