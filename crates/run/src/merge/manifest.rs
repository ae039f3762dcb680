//! `merged.json` lists the files that a merge has written. Nothing else is ever replaced.

use super::MergeError;
use crate::RunError;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};
use tightrope_formats::{
    FormatError,
    files::{Temporary, digest, files_below},
};
use tightrope_train::checkpoint::folder::{FileEntry, Files, digests};

const FILE: &str = "merged.json";

#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Every other file.
    files: Files,
}

/// Refuses a folder that is not empty, unless it may be overwritten and a merge has written all of
/// it in its present state.
pub(super) fn check(target: &Path, overwrite: bool) -> Result<(), RunError> {
    let refused = |advice: String| {
        Err(MergeError::NotEmpty {
            target: target.display().to_string(),
            advice,
        }
        .into())
    };
    if !target.exists() {
        return Ok(());
    }
    let present = files_below(target).map_err(FormatError::io(target))?;
    if present.is_empty()
        && fs::read_dir(target)
            .map_err(FormatError::io(target))?
            .next()
            .is_none()
    {
        return Ok(());
    }
    let text = fs::read(target.join(FILE)).ok();
    let manifest = text.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
    let Some(manifest) = manifest else {
        return refused("no merge has written it; give another folder".into());
    };
    if !overwrite {
        return refused("give another folder, or add --overwrite to replace it".into());
    }
    for name in present.iter().filter(|name| *name != FILE) {
        let path = target.join(name);
        let is_file = path.symlink_metadata().is_ok_and(|data| data.is_file());
        let found = is_file.then(|| digest(&path)).transpose();
        let found = found.map_err(FormatError::io(&path))?;
        let found = found.map(|(bytes, sha256)| FileEntry { bytes, sha256 });
        if found.is_none() || manifest.files.get(name) != found.as_ref() {
            return refused(format!(
                "{name} is not as a merge has written it; move it away, or give another folder"
            ));
        }
    }
    Ok(())
}

/// Lists the contents of the folder.
pub(super) fn write(folder: &Path) -> Result<(), RunError> {
    let files = digests(folder)?;
    let path = folder.join(FILE);
    let text = serde_json::to_vec_pretty(&Manifest { files });
    let text = text.map_err(|error| FormatError::io(&path)(error.into()))?;
    Ok(fs::write(&path, text).map_err(FormatError::io(&path))?)
}

/// Makes room for a finished folder: the existing one gets a temporary name, and is removed when
/// the result is dropped.
pub(super) fn set_aside(target: &Path) -> Result<Option<Temporary>, RunError> {
    if !target.exists() {
        return Ok(None);
    }
    let mut name = target.as_os_str().to_owned();
    name.push("-replaced");
    let aside = Temporary::folder(Path::new(&name)).map_err(FormatError::io(target))?;
    fs::rename(target, aside.path()).map_err(FormatError::io(target))?;
    Ok(Some(aside))
}
