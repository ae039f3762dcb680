//! A checkpoint is a folder with a manifest: written whole or not at all, checked before it is used.

use super::{CheckpointError, state};
use crate::{
    TrainError,
    files::{self, at},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tightrope_formats::files::{Temporary, digest, files_below, remove_at_once};

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 2;

/// Contents of a whole checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Number of the optimizer step after which it was written.
    pub step: u64,
    /// Every file but the manifest, by its path with `/` between the parts.
    pub files: Files,
}

/// Files of a folder, by their paths with `/` between the parts.
pub type Files = BTreeMap<String, FileEntry>;

/// One file of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Name of the checkpoint of a step.
pub fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// Checkpoints in a folder, newest first, whole or not.
pub fn list(parent: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = named(parent);
    found.retain(|(_, path)| is_checkpoint(path));
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// Finds a file or folder that has the name of a checkpoint and is none.
pub(crate) fn foreign(parent: &Path) -> Option<PathBuf> {
    let mut found = named(parent).into_iter().map(|(_, path)| path);
    found.find(|path| !is_checkpoint(path))
}

fn named(parent: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse();
        Some((step.ok()?, entry.path()))
    });
    named.collect()
}

fn is_checkpoint(path: &Path) -> bool {
    let is_folder = path.symlink_metadata().is_ok_and(|data| data.is_dir());
    let has = |file| path.join(file).is_file();
    is_folder && (has(MANIFEST) || has(state::FILE))
}

/// Writes a checkpoint: `fill` puts the files into a temporary folder beside it; the manifest lists
/// them, and then the folder gets its name. A damaged checkpoint of this name is set aside.
pub fn write(
    parent: &Path,
    step: u64,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(PathBuf, Manifest), TrainError> {
    fs::create_dir_all(parent).map_err(at(parent))?;
    let target = parent.join(name(step));
    let temporary = Temporary::folder(&target).map_err(at(&target))?;
    let folder = temporary.path();
    fill(folder)?;
    let manifest = Manifest {
        format: FORMAT,
        step,
        files: digests(folder)?,
    };
    let path = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(CheckpointError::json(&path))?;
    fs::write(&path, text).map_err(at(&path))?;
    if target.exists() {
        set_aside(&target)?;
    }
    temporary.finish().map_err(at(&target))?;
    Ok((target, manifest))
}

/// Computes size and digest of every file below `folder`.
pub fn digests(folder: &Path) -> Result<Files, TrainError> {
    let mut found = Files::new();
    for name in files_below(folder).map_err(at(folder))? {
        let path = folder.join(&name);
        let (bytes, sha256) = digest(&path).map_err(at(&path))?;
        found.insert(name, FileEntry { bytes, sha256 });
    }
    Ok(found)
}

/// Renames a damaged checkpoint so that it no longer counts as one, and returns the new path.
pub(crate) fn set_aside(checkpoint: &Path) -> Result<PathBuf, TrainError> {
    let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
    let aside = checkpoint.with_file_name(format!("damaged-{name}"));
    let aside = files::unused(&aside);
    fs::rename(checkpoint, &aside).map_err(at(checkpoint))?;
    Ok(aside)
}

/// Removes a checkpoint so that no part of it keeps its name.
pub fn delete(checkpoint: &Path) -> Result<(), TrainError> {
    remove_at_once(checkpoint).map_err(at(checkpoint))
}

/// Finds the first file in a checkpoint that no run has written; returns an error if that cannot be
/// determined.
pub(crate) fn stranger(checkpoint: &Path) -> Result<Option<String>, CheckpointError> {
    let manifest = read(checkpoint)?;
    let present = files_below(checkpoint);
    let present = present.map_err(|error| damaged(checkpoint, error.to_string()))?;
    let known = |name: &String| name == MANIFEST || manifest.files.contains_key(name);
    Ok(present.into_iter().find(|name| !known(name)))
}

fn damaged(checkpoint: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged {
        path: checkpoint.to_owned(),
        reason,
    }
}

/// Reads the manifest of a checkpoint.
pub(crate) fn read(checkpoint: &Path) -> Result<Manifest, CheckpointError> {
    let unread = |error: String| damaged(checkpoint, format!("{MANIFEST}: {error}"));
    let text = fs::read(checkpoint.join(MANIFEST)).map_err(|error| unread(error.to_string()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| unread(error.to_string()))?;
    if manifest.format != FORMAT {
        let reason = format!(
            "its format is {}, this program knows {FORMAT}",
            manifest.format
        );
        return Err(damaged(checkpoint, reason));
    }
    Ok(manifest)
}

/// Compares every file with the manifest; an error names the first difference.
pub fn check(checkpoint: &Path) -> Result<Manifest, CheckpointError> {
    let damaged = |reason| damaged(checkpoint, reason);
    let manifest = read(checkpoint)?;
    let present = files_below(checkpoint).map_err(|error| damaged(error.to_string()))?;
    for (name, expected) in &manifest.files {
        if !present.contains(name) {
            return Err(damaged(format!("{name} is missing")));
        }
        let path = checkpoint.join(name);
        let (bytes, sha256) = digest(&path).map_err(|error| damaged(format!("{name}: {error}")))?;
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
        .0
    }

    #[test]
    fn the_newest_whole_one_is_found_whatever_was_done_to_the_others() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 6] = [
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
        ];
        for (expected, damage) in damages {
            let parent = tempfile::tempdir().unwrap();
            let old = save(parent.path(), 1);
            let new = save(parent.path(), 2);
            damage(&new);
            let mut said = Vec::new();
            let (path, state) = newest(parent.path(), |_, e| said.push(e.to_string())).unwrap();
            assert_eq!((path, state.step), (old, 1));
            assert!(
                said.len() == 1 && said[0].contains(expected),
                "{said:?} lacks {expected}"
            );
            // The damaged checkpoint is set aside when its step comes again.
            save(parent.path(), 2);
            assert!(parent.path().join("damaged-step-000002").exists());
            assert_eq!(newest(parent.path(), |_, _| ()).unwrap().1.step, 2);
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_one_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        save(parent.path(), 1);
        let result = write(parent.path(), 2, |folder| {
            fs::write(folder.join("half"), "x").unwrap();
            Err(at("disk")(io::Error::other("full")))
        });
        assert!(result.is_err());
        assert_eq!(list(parent.path()).len(), 1);
        assert_eq!(newest(parent.path(), |_, _| ()).unwrap().1.step, 1);
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn without_a_whole_one_the_error_names_each() {
        let parent = tempfile::tempdir().unwrap();
        let error = newest(parent.path(), |_, _| ()).unwrap_err().to_string();
        assert!(
            error.contains("no whole checkpoint to resume from; start afresh"),
            "{error}"
        );
        let path = save(parent.path(), 7);
        fs::remove_file(path.join("adapter/weights")).unwrap();
        let error = newest(parent.path(), |_, _| ()).unwrap_err().to_string();
        assert!(error.contains("step-000007 is damaged"), "{error}");
    }

    #[test]
    fn what_only_has_the_name_is_no_checkpoint() {
        let parent = tempfile::tempdir().unwrap();
        let own = save(parent.path(), 1);
        assert_eq!(foreign(parent.path()), None);
        let file = parent.path().join("step-000002");
        fs::write(&file, "").unwrap();
        assert_eq!(list(parent.path()), [(1, own.clone())]);
        assert_eq!(foreign(parent.path()), Some(file));
        assert_eq!(stranger(&own).unwrap(), None);
        fs::write(own.join("adapter/notes"), "").unwrap();
        assert_eq!(stranger(&own).unwrap(), Some("adapter/notes".into()));
    }
}
