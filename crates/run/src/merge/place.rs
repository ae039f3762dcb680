//! Decides where a merged model may be written, and to which model an adapter belongs.

use super::MergeError;
use crate::{
    RunError,
    source::{Origin, Source},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_formats::{FormatError, files::digest};
use tightrope_train::paths;

/// The real place of the target, whatever the path looks like; refuses a target that is a file or
/// has the name of one.
pub(super) fn target(folder: &Path) -> Result<PathBuf, RunError> {
    const FILES: &[&str] = &[
        "gguf",
        "safetensors",
        "bin",
        "pt",
        "pth",
        "onnx",
        "ckpt",
        "zip",
    ];
    let shown = || folder.display().to_string();
    let ending = folder
        .extension()
        .map(|end| end.to_string_lossy().to_lowercase());
    let file = ending.is_some_and(|end| FILES.contains(&end.as_str()));
    match fs::metadata(folder) {
        Ok(data) if data.is_dir() && !file => {
            Ok(fs::canonicalize(folder).map_err(FormatError::io(folder))?)
        }
        Ok(data) if !data.is_dir() => Err(MergeError::IsAFile { target: shown() }.into()),
        _ if file => Err(MergeError::NamedLikeAFile { target: shown() }.into()),
        _ => Ok(paths::canonical(&paths::join(Path::new(""), folder))),
    }
}

/// Refuses a target that is an input, contains one or lies in one. An input that does not exist
/// causes no conflict.
pub(super) fn keep_apart(target: &Path, what: &'static str, input: &Path) -> Result<(), RunError> {
    match paths::relation(target, input) {
        None => Ok(()),
        Some(relation) => Err(MergeError::InTheWay {
            target: target.display().to_string(),
            relation,
            what,
            input: input.display().to_string(),
        }
        .into()),
    }
}

/// Refuses an adapter that was trained on another model.
pub(crate) fn check_base(adapter: &Path, model: &Origin, source: &Source) -> Result<(), RunError> {
    match other_base(adapter, model, source)? {
        None => Ok(()),
        Some(named) => Err(MergeError::OtherBase {
            adapter: adapter.display().to_string(),
            named,
            model: model.name.clone(),
        }
        .into()),
    }
}

/// The model that an adapter names, if it is another one: another hub id, or a path with other
/// weights. A model that is not on this machine cannot be compared.
pub(crate) fn other_base(
    adapter: &Path,
    model: &Origin,
    source: &Source,
) -> Result<Option<String>, RunError> {
    let path = adapter.join("adapter_config.json");
    let Ok(text) = fs::read(&path) else {
        // The code that loads the adapter reports its errors.
        return Ok(None);
    };
    let settings: Option<Value> = serde_json::from_slice(&text).ok();
    let named = settings
        .as_ref()
        .and_then(|settings| settings.get("base_model_name_or_path"));
    let Some(named) = named
        .and_then(Value::as_str)
        .filter(|named| !named.is_empty())
    else {
        return Ok(None);
    };
    let there = Path::new(named);
    let same = if there.exists() {
        let of_path = Origin::of_path(there);
        of_path == *model || same_place(there, source.path()) || same_weights(there, source.path())?
    } else {
        let origin = match Origin::of_path(there) {
            origin if origin.is_hub_id() => origin,
            _ => Origin {
                name: named.to_owned(),
                revision: None,
            },
        };
        let ids = origin.is_hub_id() && model.is_hub_id();
        !ids || origin.name.eq_ignore_ascii_case(&model.name)
    };
    Ok((!same).then(|| named.to_owned()))
}

fn same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| fs::canonicalize(path).ok();
    place(one).is_some_and(|one| Some(one) == place(other))
}

/// Whether two models have the same files of weights.
fn same_weights(one: &Path, other: &Path) -> Result<bool, RunError> {
    let (one, other) = (weights(one)?, weights(other)?);
    let size = |path: &PathBuf| {
        fs::metadata(path)
            .map(|data| data.len())
            .map_err(FormatError::io(path))
    };
    if one.len() != other.len() {
        return Ok(false);
    }
    for (one, other) in one.iter().zip(&other) {
        if size(one)? != size(other)? {
            return Ok(false);
        }
    }
    for (one, other) in one.iter().zip(&other) {
        let digest = |path: &PathBuf| digest(path).map_err(FormatError::io(path));
        if digest(one)? != digest(other)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The file itself, or the safetensors of a folder in the order of their names.
fn weights(path: &Path) -> Result<Vec<PathBuf>, RunError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(FormatError::io(path))?;
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .collect();
    found.sort();
    Ok(found)
}
