//! Errors around the training loop, with advice.

use crate::{export::ExportError, merge::MergeError, source::SourceError};
use std::path::{Path, PathBuf};
use tightrope_data::DataError;
use tightrope_device::DeviceError;
use tightrope_formats::FormatError;
use tightrope_model::ModelError;
use tightrope_packing::{SegmentError, SequenceError};
use tightrope_train::{TrainError, config::ConfigError, paths::looks_local};

/// Error of a command on a model: what the loop reports, and what goes wrong before and after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The loop cannot start or continue.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The merge is refused.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The export is refused.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A batch cannot be built.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Labels that cannot be trained.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The device has no memory or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The machine has less memory than the run needs.
    #[error(
        "the run needs {} of memory and the machine has {}: `tightrope plan` with the same \
         configuration says what needs it and what would make it fit",
        tightrope_report::numbers::bytes(*needed),
        tightrope_report::numbers::bytes(*total)
    )]
    Memory {
        /// Memory at the peak of a step, in bytes.
        needed: u64,
        /// Memory of the machine or of the control group, in bytes.
        total: u64,
    },
    /// An adapter does not exist.
    #[error("{}: no such folder; {}", path.display(), whence(path))]
    NoAdapter {
        /// Path as given.
        path: PathBuf,
    },
    /// There is no training data.
    #[error("`data.train` names no files; list what to train on")]
    NoTrainingData,
    /// Nothing can be compared with the reference model.
    #[error(
        "`objective.kind` = \"{kind}\" compares a model with its adapter and without, so only an adapter \
         can be evaluated (--adapter){}", match *kind {
            // No other objective judges single answers.
            "kto" => "",
            _ => "; `--set objective.kind=simpo` needs none",
        }
    )]
    NoReference {
        /// The objective.
        kind: &'static str,
    },
    /// Answers cannot be scored by a head of random numbers.
    #[error(
        "the model has no head that scores: name the adapter or the merged model of a run with \
         `objective.kind` = \"reward\""
    )]
    NoScores,
    /// A chat needs a template, and there is none.
    #[error(
        "the model has no chat template; set one (`--set data.chat_template=FILE`), or go on from \
         plain text (`tightrope generate --raw`)"
    )]
    NoChatTemplate,
    /// Text was requested from a model without a tokenizer.
    #[error("the model has no tokenizer, so it cannot read or write text: {why}")]
    NoTokenizer {
        /// Reason why there is no tokenizer.
        why: String,
    },
    /// A new token cannot be added.
    #[error("{message}")]
    NewToken {
        /// Reason and advice.
        message: String,
    },
    /// No logit is a number.
    #[error("the model's logits are not numbers; its weights are damaged")]
    NoLogits,
}

/// Advice about the origin of adapters, for users who may have given a hub id.
fn whence(path: &Path) -> String {
    let name = path.to_string_lossy();
    let here = "an adapter is read from a folder on this machine";
    match looks_local(&name) || name.split('/').count() != 2 {
        true => format!("{here}, such as adapter/ of a run"),
        false => format!(
            "{here}: if this is its name on the hub, download it first (hf download {name} \
             --local-dir my-adapter) and give that folder"
        ),
    }
}
