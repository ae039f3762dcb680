//! Decides where an export may be written.

use super::{ExportError, Format, gguf, ollama};
use crate::RunError;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_formats::{FormatError, files::folder_of};
use tightrope_train::paths;

/// The real place of the target; refuses folders, and names with another ending.
pub(super) fn target(file: &Path, format: &Format) -> Result<PathBuf, RunError> {
    let (target, ending) = (file.display().to_string(), format.ending);
    if fs::metadata(file).is_ok_and(|data| data.is_dir()) {
        return Err(ExportError::IsAFolder { target, ending }.into());
    }
    let own = file.extension();
    if !own.is_some_and(|own| own.eq_ignore_ascii_case(ending)) {
        return Err(ExportError::Ending { target, ending }.into());
    }
    let file = paths::join(Path::new(""), file);
    // The name itself may be a link, which is not followed.
    let name = file.file_name().unwrap_or_default();
    Ok(paths::canonical(folder_of(&file)).join(name))
}

/// The file for Ollama beside a target.
pub(super) fn modelfile(target: &Path) -> PathBuf {
    target.with_extension("Modelfile")
}

/// Refuses a target that is an input or lies in one. An input that does not exist causes no conflict.
pub(super) fn keep_apart(target: &Path, what: &'static str, input: &Path) -> Result<(), RunError> {
    match paths::relation(target, input) {
        None => Ok(()),
        Some(relation) => Err(ExportError::InTheWay {
            target: target.display().to_string(),
            relation,
            what,
            input: input.display().to_string(),
        }
        .into()),
    }
}

/// Refuses files that exist, unless they may be overwritten and an export has written them.
pub(super) fn check(target: &Path, overwrite: bool) -> Result<(), RunError> {
    let beside = modelfile(target);
    for (path, is_ours) in [
        (target, gguf::is_ours as fn(&Path) -> bool),
        (&beside, ollama::is_ours),
    ] {
        if path.symlink_metadata().is_err() {
            continue;
        }
        let advice = match (is_ours(path), overwrite) {
            (true, true) => continue,
            (true, false) => "give another file, or add --overwrite to replace it",
            (false, _) => "no export has written it; move it away, or give another file",
        };
        return Err(ExportError::Exists {
            target: path.display().to_string(),
            advice,
        }
        .into());
    }
    let parent = folder_of(target);
    match fs::metadata(parent) {
        Ok(data) if !data.is_dir() => {
            Err(FormatError::io(parent)(std::io::ErrorKind::NotADirectory.into()).into())
        }
        _ => Ok(()),
    }
}
