//! Models that also read images: their text part is read as a model of its own.

mod common;

use common::{
    batchings, cpu, documents,
    files::{case, change_json, copy, tensors, write_tensors},
};
use serde_json::{Value, json};
use std::path::Path;
use tightrope_model::{LoadOptions, Model, ModelConfig};

/// A model of text and images around a case, with tensors named by `name`.
fn around(name: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = copy(&case("gemma3"));
    change_json(&folder.path().join("config.json"), |config| {
        let mut text = config.clone();
        // Such files leave out what is the default, or stands outside.
        let keys = text.as_object_mut().unwrap();
        keys.retain(|key, _| key != "architectures" && key != "model_type");
        let tied = keys.remove("tie_word_embeddings").unwrap();
        *config = json!({
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": text,
            "tie_word_embeddings": tied,
            "vision_config": {"model_type": "siglip_vision_model"},
        });
    });
    let path = folder.path().join("model.safetensors");
    let mut all = tensors(&path);
    for tensor in &mut all {
        tensor.0 = name(&tensor.0);
    }
    let (_, description, bytes) = all[0].clone();
    all.push(("vision_tower.embeddings.weight".into(), description, bytes));
    write_tensors(&path, &all);
    folder
}

fn logits(folder: &Path) -> Vec<f32> {
    let (_, batches) = batchings(&documents(&case("gemma3"))).remove(0);
    let mut model = Model::load(&cpu(1), folder, &LoadOptions::new(batches[0].len())).unwrap();
    model.logits(&batches[0]).unwrap()
}

#[test]
fn the_text_part_is_the_model() {
    let expected = logits(&case("gemma3"));
    let old = around(|name| format!("language_model.{name}"));
    let new = around(|name| name.replace("model.", "model.language_model."));
    for folder in [old, new] {
        assert_eq!(logits(folder.path()), expected);
        let config = ModelConfig::read(folder.path()).unwrap();
        assert!(config.is_text_part() && config.model_type() == "gemma3_text");
        // What is saved has no other parts.
        let model = Model::load(&cpu(1), folder.path(), &LoadOptions::new(1)).unwrap();
        let saved = tempfile::tempdir().unwrap();
        model.save_merged(saved.path()).unwrap();
        assert_eq!(logits(saved.path()), expected);
        let text = std::fs::read_to_string(saved.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["architectures"], json!(["Gemma3ForCausalLM"]));
        assert_eq!(config["model_type"], "gemma3_text");
        let read = ModelConfig::read(saved.path()).unwrap();
        assert!(!read.is_text_part());
    }
}

#[test]
fn a_tensor_of_no_part_is_refused() {
    let folder = around(|name| format!("language_model.{name}"));
    let path = folder.path().join("model.safetensors");
    let mut all = tensors(&path);
    let (_, description, bytes) = all[0].clone();
    all.push(("audio_tower.weight".into(), description, bytes));
    write_tensors(&path, &all);
    let error = Model::load(&cpu(1), folder.path(), &LoadOptions::new(1)).unwrap_err();
    assert!(error.to_string().contains("audio_tower.weight"), "{error}");
}

/// A text part of few keys, as it is published.
#[test]
fn missing_settings_are_the_defaults() {
    let config = ModelConfig::from_json(&json!({
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    }));
    let config = config.unwrap();
    let architecture = config.architecture();
    assert_eq!((architecture.vocabulary, architecture.heads), (262_208, 8));
    assert!(architecture.tied_head);
    assert_eq!(architecture.windows[4..6], [Some(1024), None]);
    let ropes: Vec<f64> = architecture.ropes().map(|rope| rope.theta).collect();
    assert_eq!(ropes, [1e6, 1e4]);
    assert_eq!((architecture.rope_of(4), architecture.rope_of(5)), (1, 0));
}
