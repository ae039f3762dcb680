//! Finds a model: a folder, a `.gguf` file, or a model of the hub through its standard cache.

mod hub;
mod origin;

pub use hub::{Environment, Hub, Secret};
pub use origin::Origin;

use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tightrope_data::Progress;
use tightrope_train::paths::{looks_local, without_secrets};

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `config.json`, safetensors and tokenizer files.
    Folder(PathBuf),
    /// One file with everything.
    Gguf(PathBuf),
}

impl Source {
    /// The folder or file.
    pub fn path(&self) -> &Path {
        match self {
            Source::Folder(path) | Source::Gguf(path) => path,
        }
    }
}

/// Error of a model that cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A path does not exist.
    #[error("{}: no such model folder or file", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A file is no model.
    #[error("{}: a model file must be a .gguf; for safetensors give the folder", path.display())]
    NotAModel {
        /// The path.
        path: PathBuf,
    },
    /// A folder has no model in it.
    #[error(
        "{}: no config.json and not exactly one .gguf file in this folder ({found} .gguf files); \
         give the folder that holds config.json, or the .gguf file itself", path.display()
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// Number of `.gguf` files in the folder.
        found: usize,
    },
    /// The text is neither an existing path nor a hub id.
    #[error("`{model}` is neither a file or folder that exists nor a hub id such as {example}")]
    NotAnId {
        /// The given text.
        model: String,
        /// A hub id; if the text is the address of a page of the hub, that of the page.
        example: String,
    },
    /// The model is not in the cache, and the network may not be used.
    #[error(
        "`{model}` is not (wholly) in the cache {} and {reason}; {remedy}", cache.display()
    )]
    NotCached {
        /// The hub id.
        model: String,
        /// The cache.
        cache: PathBuf,
        /// Reason why the network is not used.
        reason: &'static str,
        /// Advice.
        remedy: &'static str,
    },
    /// The hub failed to deliver.
    #[error("`{model}` from {endpoint}: {reason}; {remedy}")]
    Hub {
        /// The hub id.
        model: String,
        /// The server.
        endpoint: String,
        /// Cause.
        reason: String,
        /// Advice.
        remedy: String,
    },
    /// A hub repository has no readable weights.
    #[error("`{model}` {reason}")]
    NoWeights {
        /// The hub id.
        model: String,
        /// Files that it has instead, and advice.
        reason: String,
    },
    /// A data set of the hub does not have a part.
    #[error("`{id}` has no {part}; {instead}")]
    NoSplit {
        /// The hub id.
        id: String,
        /// Split and subset.
        part: String,
        /// What it has.
        instead: String,
    },
    /// The text behind `hub:` is no id of the hub.
    #[error("`hub:{text}` is not `hub:owner/name` or `hub:owner/name@revision`")]
    NotADataId {
        /// The given text.
        text: String,
    },
    /// The cache cannot be written.
    #[error("{}: {cause}; {}", path.display(), room(cause))]
    Cache {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
    },
    /// The user stopped the download.
    #[error(
        "stopped while `{model}` was downloaded; what has come is kept, and the same command goes \
         on from there"
    )]
    Stopped {
        /// The hub id.
        model: String,
    },
}

/// Advice for a cache that cannot be written.
fn room(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or set HF_HUB_CACHE to a folder of another disk; what has come is kept"
        }
        _ => "set HF_HUB_CACHE to a folder that can be written",
    }
}

/// Finds `model`; downloads it only if it is a hub id that the cache does not hold. A path that
/// exists never touches the network.
pub fn resolve(model: &str, hub: &Hub, progress: &dyn Progress) -> Result<Source, SourceError> {
    let path = Path::new(model);
    if path.exists() {
        return local(path);
    }
    if looks_local(model) {
        return Err(SourceError::NotFound {
            path: path.to_owned(),
        });
    }
    let (id, revision) = split_revision(model);
    let revision = revision.unwrap_or("main");
    if !is_hub_id(id) || !is_revision(revision) {
        return Err(SourceError::NotAnId {
            model: without_secrets(model),
            example: example(model),
        });
    }
    local(&hub.folder(id, revision, progress)?)
}

/// Start of the name of a data set of the hub in place of a path.
const DATA: &str = "hub:";

/// The files of a path, or of a data set of the hub: `hub:owner/name` or `hub:owner/name@revision`,
/// of which one split is read, and one subset.
pub(crate) fn data_files(
    path: &Path,
    subset: Option<&str>,
    split: &str,
    hub: &Hub,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>, SourceError> {
    let Some(text) = path.to_str().and_then(|text| text.strip_prefix(DATA)) else {
        return Ok(vec![path.to_owned()]);
    };
    let (id, revision) = split_revision(text);
    if !is_hub_id(id) || !revision.is_none_or(is_revision) {
        return Err(SourceError::NotADataId {
            text: without_secrets(text),
        });
    }
    let part = hub::Part {
        id,
        revision,
        subset,
        split,
    };
    hub.data_files(&part, progress)
}

fn local(path: &Path) -> Result<Source, SourceError> {
    let is_gguf = |path: &Path| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
    };
    if !path.is_dir() {
        return if is_gguf(path) {
            Ok(Source::Gguf(path.to_owned()))
        } else {
            Err(SourceError::NotAModel {
                path: path.to_owned(),
            })
        };
    }
    if path.join("config.json").exists() {
        return Ok(Source::Folder(path.to_owned()));
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|p| is_gguf(p))
        .collect();
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(Source::Gguf(file)),
        (last, others) => Err(SourceError::EmptyFolder {
            path: path.to_owned(),
            found: others + usize::from(last.is_some()),
        }),
    }
}

/// Hub id and revision of `owner/name@revision`.
fn split_revision(model: &str) -> (&str, Option<&str>) {
    match model.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (model, None),
    }
}

/// The hub id in the address of a page of the hub, or else that of a small model.
fn example(model: &str) -> String {
    let pages = ["https://huggingface.co/", "https://hf.co/", "hf://"];
    let page = pages.iter().find_map(|start| model.strip_prefix(start));
    let mut parts = page.unwrap_or_default().split(['/', '?', '#']);
    let id = [parts.next(), parts.next()].map(Option::unwrap_or_default);
    let id = id.join("/");
    match is_hub_id(&id) {
        true => id,
        false => "HuggingFaceTB/SmolLM2-135M-Instruct".to_owned(),
    }
}

/// Whether the text is `owner/name` with the characters that the hub allows.
fn is_hub_id(id: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
    };
    id.split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name))
}

/// Whether the text is a branch, tag or commit that stays inside the cache folder.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    !revision.is_empty()
        && revision.chars().all(allowed)
        && revision
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.'))
}

#[cfg(test)]
mod tests;
