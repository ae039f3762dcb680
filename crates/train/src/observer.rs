//! Who is told what happens while a run goes on.

use crate::{EvalRow, StatePlan, StepRow, config::LoraSection};
use std::path::{Path, PathBuf};
use tightrope_data::{Preflight, Progress};

/// What a run will do, known before its first step.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Plan {
    /// The model that is started from, as configured.
    pub model: String,
    /// Where computing happens.
    pub device: String,
    /// The type of activations.
    pub precision: &'static str,
    /// All numbers of the model, an adapter's included.
    pub parameters: u64,
    /// The adapter that is trained; absent: every weight is.
    pub adapter: Option<AdapterPlan>,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Trained numbers.
    pub trained_parameters: u64,
    /// What the optimizer keeps for them.
    pub optimizer: Vec<StatePlan>,
    /// Sequences to train on.
    pub sequences: u64,
    /// Tokens of a pack; in batches, of a sequence, at most.
    pub capacity: u64,
    /// Packs (or batches) of an epoch.
    pub packs: u64,
    /// Real tokens of an epoch.
    pub tokens_per_epoch: u64,
    /// Steps done before, in an earlier part of the run.
    pub first_step: u64,
    /// Steps at the end.
    pub total_steps: u64,
    /// Optimizer steps of an epoch.
    pub steps_per_epoch: u64,
}

/// The adapter that a run trains.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct AdapterPlan {
    /// The one that the run goes on from; rank, scale and modules are then those of its files.
    pub from: Option<PathBuf>,
    /// As configured.
    #[serde(flatten)]
    pub section: LoraSection,
}

/// Told of everything; draws bars, prints JSON, or does nothing. Progress of loading comes through
/// [`Progress`].
pub trait Observer: Progress {
    /// Files of records are read.
    fn loaded(&self, _paths: &[PathBuf], _report: &Preflight) {}
    /// All is read; the first step comes next.
    fn planned(&self, _plan: &Plan) {}
    /// An optimizer step is done.
    fn stepped(&self, _row: &StepRow) {}
    /// An evaluation is done.
    fn evaluated(&self, _row: &EvalRow) {}
    /// A checkpoint is whole.
    fn saved(&self, _step: u64, _checkpoint: &Path) {}
    /// Something that a person should know.
    fn notice(&self, _text: &str) {}
}

impl Observer for () {}
