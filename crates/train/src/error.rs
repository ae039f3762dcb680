//! What can go wrong in a run, with what to do about it.

use crate::{
    checkpoint::{Change, CheckpointError},
    config::ConfigError,
    source::SourceError,
    stored::StoredPackingError,
};
use std::{io, path::PathBuf};
use tightrope_data::DataError;
use tightrope_device::DeviceError;
use tightrope_kernels::KernelError;
use tightrope_model::ModelError;
use tightrope_packing::{PackError, SegmentError, SequenceError};

/// A run that cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Finding the model.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Reading the data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Packing.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A stored packing.
    #[error("{}: {source}", path.display())]
    StoredPacking {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: StoredPackingError,
    },
    /// Putting a batch together.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Memory of the device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An operation.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another run writes there.
    #[error("{}: another run is using this output folder; wait for it, or set another `output`", output.display())]
    OutputInUse {
        /// The folder.
        output: PathBuf,
    },
    /// A fresh run where there are checkpoints.
    #[error(
        "{} already holds a run (newest checkpoint: {newest}); add --resume to go on with it, or \
         --overwrite to delete it and start afresh", output.display()
    )]
    OutputNotEmpty {
        /// The folder.
        output: PathBuf,
        /// The newest checkpoint in it.
        newest: String,
    },
    /// Resuming nothing.
    #[error("{}: nothing to resume here; start the run without --resume", output.display())]
    NothingToResume {
        /// The folder.
        output: PathBuf,
    },
    /// No training data.
    #[error("`data.train` names no files; list what to train on")]
    NoTrainingData,
    /// No sequence has a target.
    #[error("no sequence has a token to train on")]
    NothingToTrain,
    /// No sequence of the evaluation data has a target.
    #[error("no sequence of the evaluation data has a target")]
    NothingToEvaluate,
    /// A chat without a template.
    #[error("the model has no chat template; set `data.chat_template`, or give plain text")]
    NoChatTemplate,
    /// A model without a tokenizer was asked for text.
    #[error(
        "the model has no tokenizer, so it cannot read or write text; put tokenizer.json into its folder"
    )]
    NoTokenizer,
    /// Every logit is not a number.
    #[error("the model's logits are not numbers; its weights are damaged")]
    NoLogits,
    /// Labels that cannot be trained.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// A folder that would be written over.
    #[error("{}: already exists and is not empty; give another folder", folder.display())]
    FolderNotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// A precision that the processor does not have.
    #[error(
        "precision = \"bf16\" needs a GPU: on the processor activations are f32; \
         use precision = \"auto\" or \"f32\""
    )]
    Precision,
    /// An optimizer that was made for another model.
    #[error("the optimizer was made for other parameters: they differ in `{name}`")]
    OtherParameters {
        /// A parameter that only one of the two has.
        name: String,
    },
    /// A loss or gradient that is infinite or not a number. The weights were not updated.
    #[error(
        "step {step}: {what} is not finite, nothing was updated; caused by {}; {}",
        listed(sequences),
        usable(checkpoint)
    )]
    NotFinite {
        /// The step that was not done.
        step: u64,
        /// Loss or gradient.
        what: &'static str,
        /// Where the sequences came from that cause it, or all of the step if only together.
        sequences: Vec<String>,
        /// The newest checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// Resuming something else.
    #[error(
        "this is not the run that was checkpointed, and the result would differ:\n{}\nput the old \
         values back, or add --allow-change to go on all the same",
        lines(changes)
    )]
    Changed {
        /// The differences.
        changes: Vec<Change>,
    },
}

fn lines(changes: &[Change]) -> String {
    let lines: Vec<String> = changes.iter().map(|change| format!("  {change}")).collect();
    lines.join("\n")
}

fn listed(sequences: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = sequences.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    match sequences.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn usable(checkpoint: &Option<PathBuf>) -> String {
    let advice = "look at that data, or lower the learning rate";
    match checkpoint {
        Some(path) => format!(
            "{advice}; the last checkpoint, {}, is intact",
            path.display()
        ),
        None => format!("{advice}; there is no checkpoint yet"),
    }
}
