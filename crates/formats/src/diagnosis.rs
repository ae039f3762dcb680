//! Recognises a file that is no file of a model: often it only stands for one.

use crate::FormatError;
use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

/// Beginnings of files that people have in place of a model's, and what to do about each.
const KNOWN: [(&[u8], &str); 8] = [
    (
        b"version https://git-lfs.github.com/spec/",
        "is a Git LFS pointer, not the file that it stands for: run `git lfs pull` in its folder, or \
         download the file",
    ),
    (b"<!DOCTYPE", WEB_PAGE),
    (b"<!doctype", WEB_PAGE),
    (b"<html", WEB_PAGE),
    (b"PK\x03\x04", PICKLE),
    (b"\x80\x02", PICKLE),
    (
        b"GGUF",
        "is a GGUF file: name it .gguf and give its path as the model",
    ),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first"),
];

const WEB_PAGE: &str = "is a web page, not the file: the download was answered with an error or a login; download it again";

const PICKLE: &str = "holds PyTorch's own format, which can run code when it is read: in Transformers, \
                      save_pretrained(…) writes the model as safetensors";

/// Returns an error that says what the file at `path` is, if it is no file of a model.
pub fn of(path: &Path) -> Option<FormatError> {
    let mut start = Vec::new();
    File::open(path)
        .ok()?
        .take(64)
        .read_to_end(&mut start)
        .ok()?;
    let reason = match KNOWN.iter().find(|(known, _)| start.starts_with(known)) {
        Some((_, reason)) => *reason,
        None if start.is_empty() => "is empty: download or copy it again",
        None => return None,
    };
    Some(FormatError::Damaged {
        file: path.to_path_buf(),
        reason: reason.to_string(),
    })
}

/// Explains why a folder is no model: for example, it may hold only an adapter.
pub fn of_model(folder: &Path, wanted: &str) -> FormatError {
    let has = |name: &str| folder.join(name).exists();
    if !has("adapter_config.json") || has("config.json") {
        return of_folder(folder, wanted);
    }
    FormatError::NoModel {
        path: folder.to_path_buf(),
        reason: "holds an adapter, not a model: give it as the adapter, and as the model the one \
                 that it was trained on"
            .to_string(),
    }
}

/// Explains, from the names of its files, why a folder has no readable weights.
pub fn of_folder(folder: &Path, wanted: &str) -> FormatError {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let ending = |endings: &[&str]| {
        let ends = |name: &&String| endings.iter().any(|ending| name.ends_with(ending));
        names.iter().find(ends)
    };
    let pickle = ending(&[".bin", ".pth", ".pt", ".bin.index.json"]);
    let reason = if let Some(name) = ending(&[".gguf"]) {
        format!("{wanted}, but {name}: give the path of that file")
    } else if let Some(name) = names.iter().find(|n| n.starts_with("consolidated.")) {
        format!(
            "{wanted}, but {name} in the layout of the model's makers: download the files for \
             Transformers (model.safetensors or model-00001-of-…)"
        )
    } else if let Some(name) = pickle {
        format!(
            "{wanted}, but {name} in PyTorch's own format, which can run code when it is read: in \
             Transformers, save_pretrained(…) writes the model as safetensors"
        )
    } else if let Some(name) = ending(&[".safetensors"]) {
        format!(
            "{wanted}, but {name}: rename it, or download model.safetensors.index.json if it is a part \
             of several"
        )
    } else if let Some(name) = ending(&[".msgpack", ".h5", ".onnx"]) {
        format!("{wanted}, but {name}, which is not read: download the safetensors")
    } else {
        format!("{wanted}: download or copy the weights into it")
    };
    FormatError::NoModel {
        path: folder.to_path_buf(),
        reason,
    }
}
