//! Errors of runs, with advice.

use crate::{
    checkpoint::{Change, CheckpointError},
    config::{ConfigError, ObjectiveKind},
    stored::StoredPackingError,
};
use std::{io, path::PathBuf};
use tightrope_data::{DataError, ExampleKind};
use tightrope_device::DeviceError;
use tightrope_formats::FormatError;
use tightrope_kernels::KernelError;
use tightrope_model::ModelError;
use tightrope_packing::{PackError, SegmentError};
use tightrope_report::numbers::counted;

/// Error of a run that cannot start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of tensors cannot be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Packing failed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A stored packing cannot be used.
    #[error("{}: cannot be used", path.display())]
    StoredPacking {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: StoredPackingError,
    },
    /// A batch cannot be built.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The device has no memory or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file system reports an error.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Another run writes to the output folder.
    #[error("{}: another run is using this output folder; wait for it, or set another `output`", output.display())]
    OutputInUse {
        /// The folder.
        output: PathBuf,
    },
    /// A fresh run would start in a folder with checkpoints.
    #[error(
        "{} already holds a run (newest: {newest}); add --resume to go on with it, or \
         --overwrite to delete it and start afresh", output.display()
    )]
    OutputNotEmpty {
        /// The folder.
        output: PathBuf,
        /// The newest checkpoint in it, or else its result.
        newest: String,
    },
    /// The output is a file.
    #[error("{}: {what}; set another `output`", path.display())]
    OutputNotAFolder {
        /// The output, or a folder above it.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The output folder overlaps an input of the run.
    #[error(
        "the output folder {} {relation} {what} ({}), which a run must never touch; set `output` to \
         a folder of its own, such as runs/first", output.display(), input.display()
    )]
    OutputHoldsInput {
        /// The folder.
        output: PathBuf,
        /// Relation to the input: is, contains, lies in.
        relation: &'static str,
        /// Kind of the input.
        what: &'static str,
        /// Path of the input.
        input: PathBuf,
    },
    /// Data lies where the run will write.
    #[error(
        "{}: a run writes `{name}` into its output folder, so no data can lie there; move the data, \
         or set another `output`", input.display()
    )]
    OutputOverData {
        /// The data.
        input: PathBuf,
        /// Name of the file or folder that the run writes.
        name: String,
    },
    /// The run would replace something that no run has written.
    #[error(
        "{}: no run has written this, so it is not replaced; move it away, or set another `output`",
        path.display()
    )]
    NotOurs {
        /// The file or folder.
        path: PathBuf,
    },
    /// There is nothing to resume.
    #[error("{}: nothing to resume here; start the run without --resume", output.display())]
    NothingToResume {
        /// The folder.
        output: PathBuf,
    },
    /// The data is not of the kind that the objective needs.
    #[error("{}", other_data(data, *found, *objective))]
    OtherData {
        /// The data: its first file.
        data: String,
        /// Kind of its examples.
        found: ExampleKind,
        /// The objective.
        objective: ObjectiveKind,
    },
    /// The model scores sequences, and the objective needs probabilities of tokens.
    #[error(
        "the model scores sequences (a reward model), which `objective.kind` = \"{}\" cannot use; \
         `objective.kind` = \"reward\" trains and evaluates it",
        .objective.name()
    )]
    OtherHead {
        /// The objective.
        objective: ObjectiveKind,
    },
    /// No sequence has a target.
    #[error("no sequence has a token to train on{}", match *held_out {
        0 => String::new(),
        count => format!(
            "; `data.eval_ratio` holds out {}: lower or remove it, or name files in `data.eval`",
            counted(count, "sequence")
        ),
    })]
    NothingToTrain {
        /// Number of sequences that were held out for evaluation.
        held_out: u64,
    },
    /// No sequence of the evaluation data has a target.
    #[error("no sequence of the evaluation data has a target")]
    NothingToEvaluate,
    /// The optimizer was made for another model.
    #[error("the optimizer was made for other parameters: they differ in `{name}`")]
    OtherParameters {
        /// A parameter that only one of the two has.
        name: String,
    },
    /// A loss or gradient is infinite or not a number. The weights were not updated.
    #[error(
        "step {step}: {what} is not finite, nothing was updated; caused by {}; {}",
        listed(sequences),
        usable(checkpoint)
    )]
    NotFinite {
        /// Number of the step that was not done.
        step: u64,
        /// Loss or gradient.
        what: &'static str,
        /// Origins of the sequences that cause it, or of all sequences of the step if they cause it
        /// only together.
        sequences: Vec<String>,
        /// The newest checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// Weights, or moments of the optimizer, are infinite or not a number.
    #[error(
        "{}; {}", broken(*step, what), resumable(checkpoint)
    )]
    WeightsNotFinite {
        /// Number of the step after which they are; 0: before the first step.
        step: u64,
        /// Name of the values.
        what: &'static str,
        /// The newest checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The loss of an evaluation is infinite or not a number.
    #[error("the evaluation loss is {loss}: {}", unpredicted(tensor))]
    EvaluationNotFinite {
        /// The loss.
        loss: f64,
        /// First tensor of the model with a weight that is not finite, if there is one.
        tensor: Option<String>,
    },
    /// A learning rate is given for parameters that are not trained.
    #[error("`{key}` has no meaning here: {what} is not trained; remove it")]
    RateOfNothing {
        /// The key.
        key: &'static str,
        /// The parameters that it is for.
        what: &'static str,
    },
    /// The run to resume is another run.
    #[error(
        "this is not the run that was checkpointed, and the result would differ:\n{}\nput the old \
         values back, or add --allow-change to go on all the same",
        lines(changes)
    )]
    Changed {
        /// Differences between the runs.
        changes: Vec<Change>,
    },
    /// The checkpoint does not have the parameters that the run now trains.
    #[error(
        "the checkpoint does not have what the run now trains ({error}), and --allow-change cannot \
         change that:\n{}\nput the old values back, or start a new run from the saved adapter or model",
        lines(changes)
    )]
    OtherTrained {
        /// Differences between the runs.
        changes: Vec<Change>,
        /// What the checkpoint lacks, or has otherwise.
        error: Box<TrainError>,
    },
}

impl TrainError {
    /// The error of a checkpoint that is read after these changes, if there are any.
    pub(crate) fn of_changes(changes: &[Change], error: Self) -> Self {
        match changes {
            [] => error,
            _ => Self::OtherTrained {
                changes: changes.to_vec(),
                error: Box::new(error),
            },
        }
    }
}

fn other_data(data: &str, found: ExampleKind, objective: ObjectiveKind) -> String {
    let kind = objective.name();
    let has = match found {
        ExampleKind::Sequences => "has neither",
        ExampleKind::Pairs => "has pairs of answers (`chosen`, `rejected`)",
        ExampleKind::Labelled => "has answers with a verdict (`label`: good or bad)",
    };
    let needs = match objective.data() {
        ExampleKind::Sequences => "does not judge answers",
        ExampleKind::Pairs => "compares pairs of answers (`prompt`, `chosen`, `rejected`)",
        ExampleKind::Labelled => {
            "needs answers that are good or bad (`label`: true or false, 1 or 0, good or bad)"
        }
    };
    let fits = match found {
        ExampleKind::Sequences => "cross-entropy",
        ExampleKind::Pairs => "dpo, ipo, simpo, cpo, orpo or reward",
        ExampleKind::Labelled => "kto",
    };
    format!(
        "`objective.kind` = \"{kind}\" {needs}, and {data} {has}; set `objective.kind` to {fits}, or \
         give other data"
    )
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

fn broken(step: u64, what: &str) -> String {
    match step {
        0 => "the weights to start from are not finite numbers: the files are damaged".into(),
        step => format!(
            "step {step}: the update made {what} infinite or not a number; they were not saved"
        ),
    }
}

fn unpredicted(tensor: &Option<String>) -> String {
    match tensor {
        Some(tensor) => format!(
            "`{tensor}` holds weights that are infinite or not numbers; the file is damaged, or was \
             trained with too high a learning rate: use another"
        ),
        None => "the model's weights are finite, but its outputs for this data are not: check \
                 whether too high a learning rate has made the weights grow"
            .into(),
    }
}

fn resumable(checkpoint: &Option<PathBuf>) -> String {
    let advice = "lower `optimizer.learning_rate` or set `optimizer.max_grad_norm` to 1.0";
    match checkpoint {
        Some(path) => format!(
            "{advice}, and go on from the last checkpoint, {}, whose weights are finite, with \
             --resume --allow-change",
            path.display()
        ),
        None => format!("{advice}, and start again; there is no checkpoint yet"),
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
