//! Checkpoints: the state that a run needs to continue as if it had never stopped.
//!
//! `<output>/checkpoints/step-000123/` holds the weights in a format that other tools read
//! (`adapter/` for PEFT, or `model/` as a Hugging Face folder), `optimizer.safetensors`,
//! `state.json` and `manifest.json`.

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
    /// The checkpoint differs from its manifest.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no whole checkpoint.
    #[error(
        "{}: no whole checkpoint to resume from{}; start afresh without --resume (add --overwrite \
         to delete what is there)", path.display(), list(damaged)
    )]
    NoneWhole {
        /// Folder in which checkpoints were expected.
        path: PathBuf,
        /// Damaged checkpoints with their damage.
        damaged: Vec<String>,
    },
    /// The checkpoint is whole, but has other parameters.
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

/// Finds the newest whole checkpoint in `parent`; calls `skipped` for each damaged one before it.
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
