//! The output folder of a run: its lock, its contents, and the progress of the run in it.

mod apart;
mod record;

use crate::{
    Config, Observer, OutputLock, TrainError,
    checkpoint::{
        self, State,
        folder::{self, Files},
    },
    files::at,
    lock::LOCK,
};
use record::{CHECKPOINTS, FILE, Record};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_formats::files::{Temporary, folder_of, is_temporary, remove_stale, sync_folder};

/// Options for existing contents of the output folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Number of threads; 0 = one per core.
    pub threads: usize,
    /// Continues from the newest whole checkpoint.
    pub resume: bool,
    /// Deletes an earlier run in the output folder.
    pub overwrite: bool,
    /// Resumes even if configuration or data have changed so that the result will differ.
    pub allow_change: bool,
}

/// A folder that this run alone may write to.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    resume: Option<(PathBuf, State)>,
    /// Damaged checkpoints that are newer than the one that is resumed from.
    damaged: Vec<PathBuf>,
    record: Record,
    begun: bool,
    _lock: OutputLock,
}

impl Output {
    /// Takes the lock and decides where the run starts; changes no existing file. A name that the
    /// run writes and no run has written is refused. A fresh run is refused if there is another,
    /// unless it may be overwritten.
    pub fn open(
        config: &Config,
        options: &RunOptions,
        observer: &dyn Observer,
    ) -> Result<Self, TrainError> {
        let output = config.output.clone();
        if let Some((path, what)) = obstacle(&output) {
            return Err(TrainError::OutputNotAFolder { path, what });
        }
        let parent = Self::checkpoints_in(&output);
        let nothing = || TrainError::NothingToResume {
            output: output.clone(),
        };
        if options.resume && !parent.exists() {
            return Err(nothing());
        }
        let record = Record::read(&output)?;
        for name in [CHECKPOINTS, METRICS, weights_name(config)] {
            record.check(&output, name)?;
        }
        let lock = OutputLock::take(&output)?;
        for folder in [&output, &parent] {
            remove_stale(folder).map_err(at(folder))?;
        }
        let mut damaged = Vec::new();
        let resume = if options.resume {
            if folder::list(&parent).is_empty() {
                return Err(nothing());
            }
            let (path, state) = checkpoint::newest(&parent, |path, error| {
                observer.notice(&format!("skipping a checkpoint: {error}"));
                damaged.push(path.to_owned());
            })?;
            observer.notice(&format!(
                "resuming after step {}: {}",
                state.step,
                path.display()
            ));
            Some((path, state))
        } else {
            let checkpoints = folder::list(&parent);
            let newest = checkpoints.first().map(|(step, _)| folder::name(*step));
            let newest = newest.or_else(|| record.result(&output).map(str::to_owned));
            if let (Some(newest), false) = (newest, options.overwrite) {
                return Err(TrainError::OutputNotEmpty { output, newest });
            }
            for (_, checkpoint) in checkpoints {
                if let Ok(Some(file)) = folder::stranger(&checkpoint) {
                    let path = checkpoint.join(file);
                    return Err(TrainError::NotOurs { path });
                }
            }
            None
        };
        Ok(Self {
            folder: output,
            resume,
            damaged,
            record,
            begun: false,
            _lock: lock,
        })
    }

    /// Begins the run: removes the results of an earlier run, unless this run continues it. The
    /// trainer does so; who writes into the folder before begins the run itself.
    pub fn begin(&mut self, observer: &dyn Observer) -> Result<(), TrainError> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        for path in &self.damaged {
            let aside = folder::set_aside(path)?;
            observer.notice(&format!("{} is now {}", path.display(), aside.display()));
        }
        if self.resume.is_none() {
            self.record.remove_all(&self.folder, observer)?;
            self.record.demonstration = false;
        }
        for name in [CHECKPOINTS, METRICS] {
            self.record.claim(&self.folder, name, Files::new())?;
        }
        let parent = self.checkpoints();
        fs::create_dir_all(&parent).map_err(at(&parent))
    }

    /// Path of a file of the demonstration, which may be written from here on.
    pub fn demonstrate(&mut self, name: &str) -> Result<PathBuf, TrainError> {
        self.record.check(&self.folder, name)?;
        self.record.demonstration = true;
        self.record.claim(&self.folder, name, Files::new())?;
        Ok(self.folder.join(name))
    }

    /// Whether `output` contains nothing, or only an earlier demonstration.
    pub fn is_demonstration(output: &Path) -> bool {
        let checkpoints = folder::list(&Self::checkpoints_in(output));
        Record::read(output).is_ok_and(|record| {
            record.demonstration || checkpoints.is_empty() && record.result(output).is_none()
        })
    }

    /// Copies a folder with these files to `name` in the output folder. Files from an earlier part
    /// of the run are removed, and all others stay.
    pub(crate) fn publish(
        &mut self,
        name: &str,
        from: &Path,
        files: Files,
        observer: &dyn Observer,
    ) -> Result<PathBuf, TrainError> {
        let target = self.folder.join(name);
        let whole = || folder::digests(&target).is_ok_and(|there| includes(&there, &files));
        if self.record.files(name) == Some(&files) && whole() {
            return Ok(target);
        }
        let temporary = Temporary::folder(&target).map_err(at(&target))?;
        for name in files.keys() {
            let copy = temporary.path().join(name);
            let folder = folder_of(&copy);
            fs::create_dir_all(folder).map_err(at(folder))?;
            fs::copy(from.join(name), &copy).map_err(at(&copy))?;
        }
        temporary.sync().map_err(at(&target))?;
        self.record.remove(&self.folder, name, observer)?;
        self.record.claim(&self.folder, name, files.clone())?;
        if !target.exists() {
            temporary.finish().map_err(at(&target))?;
            return Ok(target);
        }
        // Foreign files stay in place. Readers begin with the configuration, so it comes last.
        let (last, first): (Vec<_>, Vec<_>) =
            files.keys().partition(|name| name.ends_with("config.json"));
        for name in first.into_iter().chain(last) {
            let (from, to) = (temporary.path().join(name), target.join(name));
            if to.symlink_metadata().is_ok() {
                record::keep(&to, observer)?;
            }
            let folder = folder_of(&to);
            fs::create_dir_all(folder).map_err(at(folder))?;
            fs::rename(&from, &to).map_err(at(&to))?;
        }
        sync_folder(&target).map_err(at(&target))?;
        Ok(target)
    }

    /// If `folder` lies directly in the output folder of a run, records there that `folder` is about
    /// to be written with these files: the next run there with `--overwrite` removes them.
    pub fn note_written(folder: &Path, files: Files) -> Result<(), TrainError> {
        let (output, name) = (folder_of(folder), folder.file_name());
        let (Some(name), true) = (
            name.and_then(|name| name.to_str()),
            output.join(FILE).exists(),
        ) else {
            return Ok(());
        };
        Record::read(output)?.claim(output, name, files)
    }

    /// Path of the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        Self::checkpoints_in(&self.folder)
    }

    /// Checkpoint and state to resume from, if the run is resumed.
    pub fn resume(&self) -> Option<(&Path, &State)> {
        self.resume
            .as_ref()
            .map(|(path, state)| (path.as_path(), state))
    }

    /// Folder of the weights that the run goes on from.
    pub fn resumed_weights(&self, config: &Config) -> Option<PathBuf> {
        let (checkpoint, _) = self.resume()?;
        Some(checkpoint.join(weights_name(config)))
    }

    /// Folder of the checkpoints of a run in `output`.
    pub(crate) fn checkpoints_in(output: &Path) -> PathBuf {
        output.join(CHECKPOINTS)
    }
}

/// What stands in the way of a folder at this path, if something does: a file or a link that leads
/// nowhere, there or above.
fn obstacle(folder: &Path) -> Option<(PathBuf, &'static str)> {
    let there = folder.ancestors().find(|path| is_there(path))?;
    let what = match (there.is_dir(), there.exists()) {
        (true, _) => return None,
        (false, true) => "not a folder",
        (false, false) => "a link to something that does not exist",
    };
    Some((there.to_owned(), what))
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

const METRICS: &str = crate::metrics::FILE;

/// Name of the folder of trained weights, in a checkpoint and in the output folder.
pub(crate) fn weights_name(config: &Config) -> &'static str {
    match config.lora {
        Some(_) => "adapter",
        None => "model",
    }
}

/// Whether a run writes something of this name into `output`, or has written it, so that
/// `--overwrite` removes it.
fn is_written(output: &Path, name: &str) -> Result<bool, TrainError> {
    let names = [
        CHECKPOINTS,
        METRICS,
        FILE,
        LOCK,
        "adapter",
        "model",
        "merged",
    ];
    let written = names.contains(&name) || is_temporary(name);
    Ok(written || Record::read(output)?.files(name).is_some())
}

fn includes(there: &Files, files: &Files) -> bool {
    files
        .iter()
        .all(|(name, entry)| there.get(name) == Some(entry))
}
