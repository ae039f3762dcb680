//! The memory of readers does not depend on the claims of files.

mod common;

use common::{
    cpu,
    files::{GgufWriter, case, change_json, convert, copy, safetensors},
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_formats::gguf::GgufTokenizer;
use tightrope_model::{LoadOptions, Model};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CASE: &str = "llama_linear";
const INDEX: &str = "model.safetensors.index.json";
const MANY: usize = 1_000_000;
/// For what allocates: the allocator that counts takes its time.
const FEW: usize = 2_000;

/// The error of loading, and the peak of memory on the way to it.
fn refused(path: &Path, adapter: bool) -> (String, usize) {
    let options = options(adapter.then(|| path.join("adapter")));
    let profiler = dhat::Profiler::builder().testing().build();
    let error = Model::load(&cpu(1), path, &options)
        .unwrap_err()
        .to_string();
    let most = dhat::HeapStats::get().max_bytes;
    drop(profiler);
    (error, most)
}

fn check(what: &str, path: &Path, adapter: bool, expected: &str, most: usize) {
    let (error, taken) = refused(path, adapter);
    assert!(error.contains(expected), "{what}: {error}");
    assert!(taken <= most, "{what}: {taken} bytes, more than {most}");
}

fn with_weights(header: &str) -> tempfile::TempDir {
    let folder = copy(&case(CASE));
    fs::write(
        folder.path().join("model.safetensors"),
        safetensors(header, &[0; 4]),
    )
    .unwrap();
    folder
}

/// So many tensors without elements.
fn short_tensors(count: usize) -> String {
    let description = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let all: Vec<String> = (0..count)
        .map(|i| format!("\"{i}\":{description}"))
        .collect();
    format!("{{{}}}", all.join(","))
}

/// So many tensors in one file.
fn names(count: usize) -> String {
    let all: Vec<String> = (0..count).map(|i| format!("\"{i}\":\"a\"")).collect();
    format!("{{{}}}", all.join(","))
}

/// Most of the memory is that of the tensors, so that there is a largest number of them.
fn check_numbers() {
    let folder = with_weights(&short_tensors((1 << 18) + 1));
    let load = |path: &Path| Model::load(&cpu(1), path, &options(None));
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has more than 262144 tensors"), "{error}");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = format!(r#"{{"weight_map":{}}}"#, names((1 << 18) + 1));
    fs::write(folder.path().join(INDEX), index).unwrap();
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("names more than 262144 tensors"), "{error}");
}

fn options(adapter: Option<PathBuf>) -> LoadOptions {
    LoadOptions {
        adapter,
        ..LoadOptions::new(8)
    }
}

/// There is one test only, because the allocator counts for the whole process.
#[test]
fn memory_does_not_follow_what_files_claim() {
    check_numbers();
    // A long description, many short ones, and a value that is no description.
    let long = format!(
        r#"{{"t":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}}}"#,
        "1,".repeat(MANY)
    );
    let folder = with_weights(&long);
    check(
        "dimensions",
        folder.path(),
        false,
        "is not valid JSON",
        4 * long.len(),
    );
    let many = short_tensors(FEW);
    let folder = with_weights(&many);
    check(
        "tensors",
        folder.path(),
        false,
        "after the last tensor",
        8 * many.len(),
    );
    let aside = format!(r#"{{"__metadata__":{{"a":[{}1]}}}}"#, "1,".repeat(MANY));
    let folder = with_weights(&aside);
    check(
        "metadata",
        folder.path(),
        false,
        "bytes after the last tensor",
        1 << 20,
    );

    // An index and a configuration.
    let folder = copy(&case(CASE));
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = format!(
        r#"{{"metadata":[{}1],"weight_map":{}}}"#,
        "1,".repeat(MANY),
        names(FEW)
    );
    fs::write(folder.path().join(INDEX), &index).unwrap();
    check(
        "index",
        folder.path(),
        false,
        "which is not in this folder",
        index.len(),
    );
    let folder = copy(&case(CASE));
    fs::write(folder.path().join("config.json"), vec![b'['; 10 * MANY]).unwrap();
    check(
        "configuration",
        folder.path(),
        false,
        "larger than any",
        10 * MANY,
    );

    // A rank, and settings of a model, that its files do not have.
    let folder = copy(&case(CASE));
    let settings = folder.path().join("adapter/adapter_config.json");
    change_json(&settings, |settings| settings["r"] = json!(1 << 20));
    check("rank", folder.path(), true, "expected [1048576, ", 4 << 20);
    let folder = copy(&case(CASE));
    change_json(&folder.path().join("config.json"), |config| {
        config["vocab_size"] = json!(1 << 20);
        config["intermediate_size"] = json!(1 << 20);
    });
    check(
        "sizes",
        folder.path(),
        false,
        "expected [1048576, ",
        4 << 20,
    );

    // Lists of a GGUF file, kept as they lie there.
    let file = folder.path().join("model.gguf");
    let mut gguf = GgufWriter::new();
    let bytes = [
        0u32.to_le_bytes().as_slice(),
        &(MANY as u64).to_le_bytes(),
        &[0; MANY],
    ]
    .concat();
    gguf.metadata.push(("a".into(), 9, bytes));
    fs::write(&file, gguf.bytes()).unwrap();
    check("bytes", &file, false, "general.architecture", 2 * MANY);
    let mut gguf = convert(&case(CASE));
    gguf.texts("tokenizer.ggml.tokens", &vec![""; MANY]);
    gguf.text("general.architecture", "?");
    fs::write(&file, gguf.bytes()).unwrap();
    check("texts", &file, false, "appears twice", 20 * MANY);
    let mut gguf = GgufWriter::new();
    gguf.text("tokenizer.ggml.model", "gpt2");
    gguf.numbers("tokenizer.ggml.tokens", &vec![0; (1 << 22) + 1]);
    fs::write(&file, gguf.bytes()).unwrap();
    let error = GgufTokenizer::read(&file).unwrap_err().to_string();
    assert!(error.contains("not too long"), "{error}");
    for at in [8, 16] {
        let mut bytes = convert(&case(CASE)).bytes();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(&file, bytes).unwrap();
        check("counts", &file, false, "are more than", 1 << 20);
    }
}
