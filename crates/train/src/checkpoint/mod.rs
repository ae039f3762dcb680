//! Checkpoints: what a run needs to go on as if it had never stopped.
//!
//! `<output>/checkpoints/step-000123/` holds the weights in a format that others read (`adapter/` as
//! PEFT has it, or `model/` as a Hugging Face folder), `optimizer.safetensors`, `state.json` and
//! `manifest.json`.

pub mod folder;
mod retention;
mod state;
mod tensors;

pub(crate) use retention::Retention;
pub use state::{Change, Identity, State};
pub(crate) use tensors::{read_tensors, restore, write_tensors};

use std::path::{Path, PathBuf};

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not what its manifest says.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// None that is whole.
    #[error(
        "{}: no whole checkpoint to resume from{}; start afresh without --resume (add --overwrite \
         to delete what is there)", path.display(), list(damaged)
    )]
    NoneWhole {
        /// Where they should be.
        path: PathBuf,
        /// Those that are damaged, and how.
        damaged: Vec<String>,
    },
    /// Whole, but of other parameters.
    #[error("{}: {reason}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

impl CheckpointError {
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Mismatch {
            path,
            reason: error.to_string(),
        }
    }
}

fn list(damaged: &[String]) -> String {
    match damaged {
        [] => String::new(),
        some => format!(" ({})", some.join("; ")),
    }
}

/// The newest whole checkpoint in `parent`; `skipped` is told of each damaged one before it.
pub fn newest(
    parent: &Path,
    mut skipped: impl FnMut(&Path, &CheckpointError),
) -> Result<(PathBuf, State), CheckpointError> {
    let mut damaged = Vec::new();
    for (_, path) in folder::list(parent) {
        match folder::check(&path).and_then(|_| State::read(&path)) {
            Ok(state) => return Ok((path, state)),
            Err(error) => {
                skipped(&path, &error);
                damaged.push(error.to_string());
            }
        }
    }
    Err(CheckpointError::NoneWhole {
        path: parent.to_owned(),
        damaged,
    })
}
