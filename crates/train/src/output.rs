//! The output folder of a run: who may write to it, and where the run in it stands.

use crate::{
    Config, Observer, OutputLock, TrainError,
    checkpoint::{self, State, folder},
    files::at,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How to treat what is already in the output folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Threads to compute with; 0 = one per core.
    pub threads: usize,
    /// Go on from the newest whole checkpoint.
    pub resume: bool,
    /// Delete an earlier run in the output folder.
    pub overwrite: bool,
    /// Resume even if configuration or data have changed so that the result will differ.
    pub allow_change: bool,
}

/// A folder that this run alone may write to.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    resume: Option<(PathBuf, State)>,
    _lock: OutputLock,
}

impl Output {
    /// Takes the lock and decides where the run starts. A fresh run is refused where there are
    /// checkpoints, unless they may be overwritten.
    pub fn open(
        config: &Config,
        options: &RunOptions,
        observer: &dyn Observer,
    ) -> Result<Self, TrainError> {
        let output = config.output.clone();
        let parent = Self::checkpoints_in(&output);
        if options.resume && !parent.exists() {
            return Err(TrainError::NothingToResume { output });
        }
        let lock = OutputLock::take(&output)?;
        folder::clean(&parent)?;
        let resume = if options.resume {
            let (path, state) = checkpoint::newest(&parent, |error| {
                observer.notice(&format!("skipping a checkpoint: {error}"));
            })?;
            observer.notice(&format!(
                "resuming after step {}: {}",
                state.step,
                path.display()
            ));
            Some((path, state))
        } else {
            let newest = folder::list(&parent).into_iter().next();
            match newest {
                Some(_) if options.overwrite => {
                    for (_, checkpoint) in folder::list(&parent) {
                        folder::delete(&checkpoint)?;
                    }
                }
                Some((_, newest)) => {
                    let newest = newest.file_name().unwrap_or_default();
                    return Err(TrainError::OutputNotEmpty {
                        output,
                        newest: newest.to_string_lossy().into_owned(),
                    });
                }
                None => (),
            }
            None
        };
        fs::create_dir_all(&parent).map_err(at(&parent))?;
        Ok(Self {
            folder: output,
            resume,
            _lock: lock,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of its checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        Self::checkpoints_in(&self.folder)
    }

    /// Where the run stands, if it is resumed.
    pub fn resume(&self) -> Option<(&Path, &State)> {
        self.resume
            .as_ref()
            .map(|(path, state)| (path.as_path(), state))
    }

    /// Where the checkpoints of a run in `output` are.
    pub(crate) fn checkpoints_in(output: &Path) -> PathBuf {
        output.join("checkpoints")
    }
}
