//! `run.json` lists what runs have written into an output folder. Nothing else is ever replaced
//! there.

use crate::{
    Observer, TrainError,
    checkpoint::{
        CheckpointError,
        folder::{self, Files},
    },
    files::{self, at},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};
use tightrope_formats::files::{digest, files_below, write};

/// Name of the file.
pub(super) const FILE: &str = "run.json";
/// Name of the folder of checkpoints; each checkpoint has its own manifest.
pub(super) const CHECKPOINTS: &str = "checkpoints";
const FORMAT: u32 = 1;

/// Contents of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    /// Whether the run is the built-in demonstration.
    pub demonstration: bool,
    /// Names in the output folder; for folders, the files that were written into them.
    written: BTreeMap<String, Files>,
}

impl Record {
    /// Reads the record of an output folder; it is empty if there is none yet.
    pub(super) fn read(output: &Path) -> Result<Self, TrainError> {
        let path = output.join(FILE);
        let Ok(data) = path.symlink_metadata() else {
            return Ok(Self {
                format: FORMAT,
                demonstration: false,
                written: BTreeMap::new(),
            });
        };
        let text = match data.is_file() {
            true => fs::read(&path).map_err(at(&path))?,
            false => Vec::new(),
        };
        let record = serde_json::from_slice::<Self>(&text).ok();
        let plain = |name: &String| {
            let mut parts = Path::new(name).components();
            parts.all(|part| matches!(part, Component::Normal(_)))
        };
        let names = |record: &Self| {
            let files = record.written.values().flat_map(BTreeMap::keys);
            record.format == FORMAT && record.written.keys().chain(files).all(plain)
        };
        record.filter(names).ok_or(TrainError::NotOurs { path })
    }

    pub(super) fn write(&self, output: &Path) -> Result<(), TrainError> {
        let path = output.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(CheckpointError::json(&path))?;
        write(&path, &text).map_err(at(&path))
    }

    /// Records that `name` is about to be written.
    pub(super) fn claim(
        &mut self,
        output: &Path,
        name: &str,
        files: Files,
    ) -> Result<(), TrainError> {
        if self.written.get(name) != Some(&files) {
            self.written.insert(name.to_owned(), files);
            self.write(output)?;
        }
        Ok(())
    }

    /// Files that were written into the folder `name`.
    pub(super) fn files(&self, name: &str) -> Option<&Files> {
        self.written.get(name)
    }

    /// A result of a run that is still there.
    pub(super) fn result(&self, output: &Path) -> Option<&str> {
        let folders = self.written.iter().filter(|(_, files)| !files.is_empty());
        let mut names = folders.map(|(name, _)| name.as_str());
        names.find(|name| output.join(name).exists())
    }

    /// Refuses a name that runs write if no run has written it.
    pub(super) fn check(&self, output: &Path, name: &str) -> Result<(), TrainError> {
        let path = output.join(name);
        let Ok(data) = path.symlink_metadata() else {
            return Ok(());
        };
        let own = match name {
            CHECKPOINTS => {
                if let Some(path) = folder::foreign(&path) {
                    return Err(TrainError::NotOurs { path });
                }
                let empty =
                    || fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
                let known = self.written.contains_key(name);
                data.is_dir() && (known || !folder::list(&path).is_empty() || empty())
            }
            _ => match self.written.get(name) {
                None => false,
                Some(files) => data.is_dir() != files.is_empty() && !data.is_symlink(),
            },
        };
        match own {
            true => Ok(()),
            false => Err(TrainError::NotOurs { path }),
        }
    }

    /// Removes everything that was written, like [`Record::remove`], and the checkpoints.
    pub(super) fn remove_all(
        &mut self,
        output: &Path,
        observer: &dyn Observer,
    ) -> Result<(), TrainError> {
        let parent = output.join(CHECKPOINTS);
        for (_, checkpoint) in folder::list(&parent) {
            match folder::read(&checkpoint) {
                Ok(_) => folder::delete(&checkpoint)?,
                Err(error) => {
                    let aside = folder::set_aside(&checkpoint)?;
                    observer.notice(&format!("{error}; it is now {}", aside.display()));
                }
            }
        }
        let names: Vec<String> = self.written.keys().cloned().collect();
        for name in names.iter().filter(|name| *name != CHECKPOINTS) {
            self.remove(output, name, observer)?;
        }
        self.write(output)
    }

    /// Removes the file `name`, or the recorded files of the folder `name`. Other files stay, and
    /// changed files are kept under another name.
    pub(super) fn remove(
        &mut self,
        output: &Path,
        name: &str,
        observer: &dyn Observer,
    ) -> Result<(), TrainError> {
        let Some(files) = self.written.remove(name) else {
            return Ok(());
        };
        let path = output.join(name);
        let Ok(data) = path.symlink_metadata() else {
            return Ok(());
        };
        if data.is_file() && files.is_empty() {
            return fs::remove_file(&path).map_err(at(&path));
        }
        if !data.is_dir() {
            return Ok(());
        }
        for name in files_below(&path).map_err(at(&path))? {
            let file = path.join(&name);
            let (Some(entry), Ok(data)) = (files.get(&name), file.symlink_metadata()) else {
                continue;
            };
            let same = data.is_file() && data.len() == entry.bytes;
            if same && digest(&file).map_err(at(&file))?.1 == entry.sha256 {
                fs::remove_file(&file).map_err(at(&file))?;
            } else {
                keep(&file, observer)?;
            }
        }
        remove_empty(&path);
        Ok(())
    }
}

/// Renames a foreign file that is in the way.
pub(super) fn keep(file: &Path, observer: &dyn Observer) -> Result<PathBuf, TrainError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".kept");
    let kept = files::unused(Path::new(&name));
    fs::rename(file, &kept).map_err(at(file))?;
    observer.notice(&format!(
        "{} was not written by the run, or was changed since: kept as {}",
        file.display(),
        kept.display()
    ));
    Ok(kept)
}

/// Removes empty folders, the inner ones first; one that is not empty cannot be removed.
fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
