//! Several adapters as one, against PEFT's `add_weighted_adapter`.

mod common;

use common::{
    Expected, batchings, capacity, cpu, documents,
    files::{case, change_json, tensors, write_tensors},
};
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tightrope_model::{Combination, LoadOptions, Model, ModelError, combine_adapters};
use tightrope_testkit::relative_distance;

fn folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/combined").join(name)
}

fn combine(parts: &[(&str, f64)], combination: Combination) -> Result<TempDir, ModelError> {
    let parts: Vec<_> = parts.iter().map(|&(name, w)| (folder(name), w)).collect();
    let folder = TempDir::new().unwrap();
    combine_adapters(&parts, combination, folder.path()).map(|()| folder)
}

fn logits(adapter: &Path) -> Vec<f32> {
    let base = case("llama_linear");
    let sequences = documents(&base);
    let options = LoadOptions {
        adapter: Some(adapter.to_owned()),
        ..LoadOptions::new(capacity(&sequences))
    };
    let mut model = Model::load(&cpu(1), &base, &options).unwrap();
    let (_, batches) = batchings(&sequences).remove(0);
    model.logits(&batches[0]).unwrap()
}

#[test]
fn adapters_become_what_peft_makes_of_them() {
    let expected = Expected::open(&folder("expected.safetensors"));
    for (name, combination, parts) in [
        ("cat", Combination::Cat, &[("a", 0.7), ("b", -0.3)][..]),
        ("linear", Combination::Linear, &[("c", 0.6), ("d", -0.4)]),
        (
            "linear_three",
            Combination::Linear,
            &[("d", 0.5), ("c", 0.2), ("c", 0.9)],
        ),
    ] {
        let combined = combine(parts, combination).unwrap();
        let distance = relative_distance(&logits(combined.path()), &expected.get(name));
        let close = distance <= 1e-5;
        assert!(close, "{name}: {distance:e}");
    }
}

#[test]
fn one_adapter_of_weight_one_is_itself() {
    let combined = combine(&[("a", 1.0)], Combination::Cat).unwrap();
    for (a, b) in logits(combined.path()).iter().zip(logits(&folder("a"))) {
        let close = (a - b).abs() <= 1e-5;
        assert!(close, "{a} and {b}");
    }
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let error =
        |parts: &[(&str, f64)], combination| combine(parts, combination).unwrap_err().to_string();
    let ranks = error(&[("a", 1.0), ("b", 1.0)], Combination::Linear);
    assert!(
        ranks.contains("`r`") && ranks.contains("needs rank 3"),
        "{ranks}"
    );
    assert!(error(&[], Combination::Cat).contains("no adapter"));

    let copied = |name: &str| {
        let copy = TempDir::new().unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(folder(name).join(file), copy.path().join(file)).unwrap();
        }
        copy
    };
    let refused = |other: &Path| {
        let parts = [(folder("a"), 1.0), (other.to_owned(), 1.0)];
        let to = TempDir::new().unwrap();
        combine_adapters(&parts, Combination::Cat, to.path()).unwrap_err()
    };
    for (key, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("r", json!(4)),
    ] {
        let copy = copied("c");
        let file = copy.path().join("adapter_config.json");
        change_json(&file, |config| config[key] = value.clone());
        let error = refused(copy.path());
        match key {
            "r" => assert!(matches!(error, ModelError::Shape { .. }), "{error}"),
            _ => assert!(error.to_string().contains(&format!("`{key}`")), "{error}"),
        }
    }
    // Other sizes, half of a pair.
    for name in ["lora_A", "lora_B"] {
        let copy = copied("c");
        let file = copy.path().join("adapter_model.safetensors");
        let mut all = tensors(&file);
        all.retain(|(tensor, ..)| !tensor.contains(name));
        write_tensors(&file, &all);
        refused(copy.path());
    }
    let other = case("llama_yarn").join("adapter");
    assert!(matches!(refused(&other), ModelError::Shape { .. }));
}
