//! The head of a model whose configuration ties it to the embedding: the files decide.

mod common;

use common::{
    batchings, cpu, documents,
    files::{case, change_json, copy, tensors, write_tensors},
    options,
};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_model::{LoadOptions, Model, TrainableModel, Training};

const HEAD: &str = "lm_head.weight";
type Tensors = Vec<(String, Value, Vec<u8>)>;

/// A tied model, with its weights changed.
fn tied(change: impl FnOnce(&mut Tensors)) -> TempDir {
    let folder = copy(&case("qwen2_tied"));
    let path = folder.path().join("model.safetensors");
    let mut all = tensors(&path);
    change(&mut all);
    write_tensors(&path, &all);
    folder
}

fn embedding(all: &Tensors) -> (String, Value, Vec<u8>) {
    let embedding = all.iter().find(|t| t.0.contains("embed_tokens"));
    embedding.unwrap().clone()
}

/// A separate head: the embedding, twice as large.
fn with_other_head(all: &mut Tensors) {
    let (_, description, mut bytes) = embedding(all);
    for word in bytes.as_chunks_mut::<4>().0 {
        *word = (2.0 * f32::from_le_bytes(*word)).to_le_bytes();
    }
    all.push((HEAD.into(), description, bytes));
}

fn load_options() -> LoadOptions {
    let case = case("qwen2_tied");
    options(&case, false, &documents(&case))
}

fn load(folder: &Path) -> Model<Cpu> {
    Model::load(&cpu(1), folder, &load_options()).unwrap()
}

fn trained(folder: &Path) -> TrainableModel<Cpu> {
    TrainableModel::load(&cpu(1), folder, &Training::Full, &load_options()).unwrap()
}

fn logits(folder: &Path) -> Vec<f32> {
    let (_, batches) = batchings(&documents(&case("qwen2_tied"))).remove(0);
    let mut model = load(folder);
    model.logits(&batches[0]).unwrap()
}

fn is_tied(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["tie_word_embeddings"].clone()
}

#[test]
fn another_head_is_used_trained_and_written() {
    let folder = tied(with_other_head);
    // The result is as if the configuration had said so.
    let said = tied(with_other_head);
    change_json(&said.path().join("config.json"), |config| {
        config["tie_word_embeddings"] = false.into();
    });
    let found = logits(folder.path());
    assert_eq!(found, logits(said.path()));
    assert_ne!(found, logits(&case("qwen2_tied")));
    let mut full = trained(folder.path());
    assert!(full.parameters().iter().any(|p| p.name == HEAD));
    for model in [&load(folder.path()), &*full] {
        let merged = TempDir::new().unwrap();
        model.save_merged(merged.path()).unwrap();
        assert_eq!(is_tied(merged.path()), false);
        assert_eq!(logits(merged.path()), found);
    }
}

#[test]
fn an_equal_head_stays_the_embedding() {
    let folder = tied(|all| {
        let (_, description, bytes) = embedding(all);
        all.push((HEAD.into(), description, bytes));
    });
    assert_eq!(logits(folder.path()), logits(&case("qwen2_tied")));
    let mut model = trained(folder.path());
    assert!(model.parameters().iter().all(|p| p.name != HEAD));
    let merged = TempDir::new().unwrap();
    model.save_merged(merged.path()).unwrap();
    assert_eq!(is_tied(merged.path()), true);
    let names = tensors(&merged.path().join("model.safetensors"));
    assert!(names.iter().all(|(name, _, _)| name != HEAD));
}

#[test]
fn the_one_tensor_may_have_the_name_of_the_head() {
    let folder = tied(|all| {
        let one = all.iter_mut().find(|t| t.0.contains("embed_tokens"));
        one.unwrap().0 = HEAD.into();
    });
    assert_eq!(logits(folder.path()), logits(&case("qwen2_tied")));
    let merged = TempDir::new().unwrap();
    load(folder.path()).save_merged(merged.path()).unwrap();
    assert_eq!(logits(merged.path()), logits(&case("qwen2_tied")));
}
