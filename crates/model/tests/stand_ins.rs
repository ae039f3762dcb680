//! Files that users have in place of a model's, and the advice in the errors.

mod common;

use common::{
    cpu,
    files::{case, convert, copy},
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tightrope_formats::diagnosis;
use tightrope_model::{LoadOptions, Model};

const CASE: &str = "llama_linear";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n";
const WEIGHTS: &str = "model.safetensors";

/// The error of loading and its causes, as the command shows them.
fn refused(path: &Path, adapter: Option<PathBuf>) -> String {
    let options = LoadOptions {
        adapter,
        ..LoadOptions::new(8)
    };
    let error = Model::load(&cpu(1), path, &options).unwrap_err();
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        shown += &format!(": {error}");
        cause = error.source();
    }
    shown
}

fn check(shown: &str, path: &Path, expected: &str) {
    let start = path.display().to_string();
    assert!(shown.starts_with(&start), "{shown}");
    assert!(shown.contains(expected), "{expected}: {shown}");
    // Nothing is said twice.
    let parts: Vec<&str> = shown.split(": ").collect();
    for (index, part) in parts.iter().enumerate() {
        assert!(!parts[..index].contains(part), "{shown}");
    }
}

/// The case with one of its files replaced.
fn with(name: &str, contents: &[u8]) -> (TempDir, PathBuf) {
    let folder = copy(&case(CASE));
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    (folder, path)
}

#[test]
fn pointers_pages_and_foreign_formats_are_named() {
    for (contents, expected) in [
        (POINTER.as_bytes(), "git lfs pull"),
        (b"".as_slice(), "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04\x14\x00\x08\x08\x08\x08", "PyTorch"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j", "PyTorch"),
        (b"GGUF\x03\x00\x00\x00\x00\x00", "name it .gguf"),
    ] {
        let (folder, path) = with(WEIGHTS, contents);
        check(&refused(folder.path(), None), &path, expected);
    }
    for name in [
        "config.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    ] {
        let (folder, path) = with(name, POINTER.as_bytes());
        let adapter = Some(folder.path().join("adapter"));
        check(&refused(folder.path(), adapter), &path, "git lfs pull");
    }
    let (folder, path) = with("model.gguf", POINTER.as_bytes());
    check(&refused(&path, None), &path, "git lfs pull");
    let (folder_of_index, path) = with("model.safetensors.index.json", POINTER.as_bytes());
    fs::remove_file(folder_of_index.path().join(WEIGHTS)).unwrap();
    check(
        &refused(folder_of_index.path(), None),
        &path,
        "git lfs pull",
    );
    assert!(diagnosis::of(&path).is_some());
    assert!(diagnosis::of(&folder.path().join(WEIGHTS)).is_none());
}

#[test]
fn cut_downloads_are_told_from_damaged_files() {
    let whole = fs::read(case(CASE).join(WEIGHTS)).unwrap();
    for kept in [100, whole.len() / 2, whole.len() - 1] {
        let (folder, path) = with(WEIGHTS, &whole[..kept]);
        let expected = format!("has {kept} bytes, but its header describes ");
        check(&refused(folder.path(), None), &path, &expected);
        check(&refused(folder.path(), None), &path, "cut short");
    }
    let whole = convert(&case(CASE)).bytes();
    for kept in [200, whole.len() / 2, whole.len() - 1] {
        let (_folder, path) = with("model.gguf", &whole[..kept]);
        check(&refused(&path, None), &path, "cut short");
    }
}

#[test]
fn folders_without_weights_say_what_they_have_instead() {
    for (others, expected) in [
        (vec![], "has neither model.safetensors"),
        (
            vec!["pytorch_model.bin"],
            "but pytorch_model.bin in PyTorch's own format",
        ),
        (vec!["pytorch_model.bin.index.json"], "PyTorch's own format"),
        (
            vec!["consolidated.00.pth"],
            "consolidated.00.pth in the layout of the model's makers",
        ),
        (
            vec!["consolidated.safetensors", "params.json"],
            "consolidated.safetensors in the layout",
        ),
        (vec!["q4.gguf"], "but q4.gguf: give the path of that file"),
        (
            vec!["model-00001-of-00002.safetensors"],
            "model.safetensors.index.json if it is a part",
        ),
        (vec!["tf_model.h5"], "tf_model.h5, which is not read"),
    ] {
        let folder = copy(&case(CASE));
        fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
        for name in others {
            fs::write(folder.path().join(name), "?").unwrap();
        }
        check(&refused(folder.path(), None), folder.path(), expected);
    }
    let folder = copy(&case(CASE));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    check(
        &refused(folder.path(), None),
        folder.path(),
        "has no config.json",
    );
    let adapter = folder.path().join("adapter");
    check(
        &refused(&adapter, None),
        &adapter,
        "holds an adapter, not a model",
    );
    let (folder, path) = with("config.json", b"{");
    check(&refused(folder.path(), None), &path, "is not valid JSON");
}

#[test]
fn adapters_without_their_files_say_so() {
    let folder = copy(&case(CASE));
    let adapter = folder.path().join("adapter");
    fs::rename(
        adapter.join("adapter_model.safetensors"),
        adapter.join("adapter_model.bin"),
    )
    .unwrap();
    let shown = refused(folder.path(), Some(adapter.clone()));
    check(
        &shown,
        &adapter,
        "has no adapter_model.safetensors, but adapter_model.bin",
    );
    fs::remove_file(adapter.join("adapter_config.json")).unwrap();
    let shown = refused(folder.path(), Some(adapter.clone()));
    check(&shown, &adapter, "has no adapter_config.json");
    let missing = folder.path().join("nowhere");
    let shown = refused(folder.path(), Some(missing.clone()));
    check(&shown, &missing, "No such file");
}
