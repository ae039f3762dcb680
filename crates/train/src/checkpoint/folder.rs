//! A checkpoint is a folder with a manifest: written whole or not at all, checked before it is used.

use super::CheckpointError;
use crate::{
    TrainError,
    files::{self, at},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

const MANIFEST: &str = "manifest.json";
const TEMPORARY: &str = ".tmp-";
const FORMAT: u32 = 1;

/// What a whole checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// The optimizer step after which it was written.
    pub step: u64,
    /// Every file but this one, by its path with `/` between the parts.
    pub files: BTreeMap<String, FileEntry>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The name of the checkpoint of a step.
pub fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// Checkpoints in a folder, newest first, whole or not.
pub fn list(parent: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse();
            Some((step.ok()?, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// Writes a checkpoint: `fill` puts the files into a temporary folder beside it; they are made
/// durable, listed in the manifest, and the folder gets its name. One that is there already under
/// this name (a damaged one) is replaced.
pub fn write(
    parent: &Path,
    step: u64,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    fs::create_dir_all(parent).map_err(at(parent))?;
    let target = parent.join(name(step));
    let temporary = parent.join(format!("{TEMPORARY}{}", name(step)));
    remove(&temporary)?;
    fs::create_dir(&temporary).map_err(at(&temporary))?;
    fill(&temporary)?;

    let mut manifest = Manifest {
        format: FORMAT,
        step,
        files: BTreeMap::new(),
    };
    for name in files::files_below(&temporary).map_err(at(&temporary))? {
        let path = temporary.join(&name);
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(at(&path))?;
        files::sync_folder(files::folder_of(&path)).map_err(at(&path))?;
        let (bytes, sha256) = files::digest(&path).map_err(at(&path))?;
        manifest.files.insert(name, FileEntry { bytes, sha256 });
    }
    let text = serde_json::to_vec_pretty(&manifest).map_err(CheckpointError::json(&temporary))?;
    let path = temporary.join(MANIFEST);
    files::write(&path, &text).map_err(at(&path))?;

    if target.exists() {
        let damaged = parent.join(format!("{TEMPORARY}replaced-{}", name(step)));
        remove(&damaged)?;
        fs::rename(&target, &damaged).map_err(at(&target))?;
    }
    fs::rename(&temporary, &target).map_err(at(&target))?;
    files::sync_folder(parent).map_err(at(parent))?;
    clean(parent)?;
    Ok(target)
}

/// Removes what a process that was killed while writing left behind.
pub fn clean(parent: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a checkpoint so that no half of it keeps its name.
pub fn delete(checkpoint: &Path) -> Result<(), TrainError> {
    let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
    let doomed = checkpoint.with_file_name(format!("{TEMPORARY}deleted-{name}"));
    remove(&doomed)?;
    fs::rename(checkpoint, &doomed).map_err(at(checkpoint))?;
    remove(&doomed)
}

fn remove(path: &Path) -> Result<(), TrainError> {
    let is_folder = path.symlink_metadata().map(|data| data.is_dir());
    match is_folder {
        Ok(true) => fs::remove_dir_all(path).map_err(at(path)),
        Ok(false) => fs::remove_file(path).map_err(at(path)),
        Err(_) => Ok(()),
    }
}

/// Compares every file with the manifest; says what is wrong with the first that differs.
pub fn check(checkpoint: &Path) -> Result<Manifest, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged {
        path: checkpoint.to_owned(),
        reason,
    };
    let text = fs::read(checkpoint.join(MANIFEST))
        .map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
    if manifest.format != FORMAT {
        return Err(damaged(format!(
            "its format is {}, this program knows {FORMAT}",
            manifest.format
        )));
    }
    let present = files::files_below(checkpoint).map_err(|error| damaged(error.to_string()))?;
    for (name, expected) in &manifest.files {
        if !present.contains(name) {
            return Err(damaged(format!("{name} is missing")));
        }
        let path = checkpoint.join(name);
        let (bytes, sha256) =
            files::digest(&path).map_err(|error| damaged(format!("{name}: {error}")))?;
        if bytes != expected.bytes {
            return Err(damaged(format!(
                "{name} has {bytes} bytes instead of {}",
                expected.bytes
            )));
        }
        if sha256 != expected.sha256 {
            return Err(damaged(format!("the contents of {name} have changed")));
        }
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Identity, State, newest};
    use std::io;

    fn save(parent: &Path, step: u64) -> PathBuf {
        let state = State {
            step,
            ..State::new(Identity::default())
        };
        write(parent, step, |folder| {
            fs::create_dir(folder.join("adapter")).unwrap();
            fs::write(folder.join("adapter/weights"), [step as u8; 9]).unwrap();
            state.write(folder)
        })
        .unwrap()
    }

    #[test]
    fn the_newest_whole_one_is_found_whatever_was_done_to_the_others() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 7] = [
            ("has 3 bytes instead of 9", |c| {
                fs::write(c.join("adapter/weights"), "abc").unwrap()
            }),
            ("the contents of adapter/weights", |c| {
                fs::write(c.join("adapter/weights"), [0; 9]).unwrap()
            }),
            ("adapter/weights is missing", |c| {
                fs::remove_file(c.join("adapter/weights")).unwrap()
            }),
            ("manifest.json: ", |c| {
                fs::remove_file(c.join(MANIFEST)).unwrap()
            }),
            ("manifest.json: ", |c| {
                fs::write(c.join(MANIFEST), "{\"format\":1").unwrap()
            }),
            ("its format is 9", |c| {
                fs::write(c.join(MANIFEST), r#"{"format":9,"step":2,"files":{}}"#).unwrap()
            }),
            ("manifest.json: ", |c| {
                fs::remove_dir_all(c).unwrap();
                fs::write(c, "").unwrap()
            }),
        ];
        for (expected, damage) in damages {
            let parent = tempfile::tempdir().unwrap();
            let old = save(parent.path(), 1);
            let new = save(parent.path(), 2);
            damage(&new);
            let mut said = Vec::new();
            let (path, state) = newest(parent.path(), |e| said.push(e.to_string())).unwrap();
            assert_eq!((path, state.step), (old, 1));
            assert!(
                said.len() == 1 && said[0].contains(expected),
                "{said:?} lacks {expected}"
            );
            // The damaged one is replaced when its step comes again.
            save(parent.path(), 2);
            assert_eq!(newest(parent.path(), |_| ()).unwrap().1.step, 2);
        }
    }

    #[test]
    fn a_write_that_dies_leaves_the_old_one_and_no_new_name() {
        let parent = tempfile::tempdir().unwrap();
        save(parent.path(), 1);
        let result = write(parent.path(), 2, |folder| {
            fs::write(folder.join("half"), "x").unwrap();
            Err(at("disk")(io::Error::other("full")))
        });
        assert!(result.is_err());
        assert_eq!(list(parent.path()).len(), 1);
        assert!(
            parent.path().join(".tmp-step-000002").exists(),
            "as a killed process leaves it"
        );
        assert_eq!(newest(parent.path(), |_| ()).unwrap().1.step, 1);
        clean(parent.path()).unwrap();
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn without_a_whole_one_the_error_names_each() {
        let parent = tempfile::tempdir().unwrap();
        let error = newest(parent.path(), |_| ()).unwrap_err().to_string();
        assert!(
            error.contains("no whole checkpoint to resume from; start afresh"),
            "{error}"
        );
        let path = save(parent.path(), 7);
        fs::remove_file(path.join("adapter/weights")).unwrap();
        let error = newest(parent.path(), |_| ()).unwrap_err().to_string();
        assert!(error.contains("step-000007 is damaged"), "{error}");
    }
}
