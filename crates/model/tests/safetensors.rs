//! Hugging Face folders: reading them, and one test for each way in which a folder can be wrong.

mod common;

use common::{
    cpu,
    files::{case, change_json, copy, tensors, write_tensors},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use tightrope_device::{Cpu, DType};
use tightrope_formats::FormatError;
use tightrope_model::{
    LoadOptions, LoraConfig, Model, ModelError, ParameterKind, Purpose, TargetModules,
    TrainableModel, Training,
};
use tightrope_packing::{Batch, Piece, Sequence};

const CASE: &str = "llama_linear";

fn load(folder: &Path) -> Result<Model<Cpu>, ModelError> {
    Model::load(&cpu(1), folder, &LoadOptions::new(8))
}

fn batch() -> Batch {
    let sequence = Sequence::from_labels(vec![3, 4, 5, 6], &[3, 4, 5, 6]).unwrap();
    let piece = Piece {
        sequence: 0,
        start: 0,
        length: 4,
    };
    Batch::packed(&[sequence], &[piece]).unwrap()
}

/// The case with its weights changed.
fn changed(change: impl FnOnce(&mut Vec<(String, Value, Vec<u8>)>)) -> tempfile::TempDir {
    let folder = copy(&case(CASE));
    let path = folder.path().join("model.safetensors");
    let mut tensors = tensors(&path);
    change(&mut tensors);
    write_tensors(&path, &tensors);
    folder
}

#[test]
fn names_without_prefix_are_the_same_model() {
    let folder = changed(|tensors| {
        for (name, _, _) in tensors {
            *name = name.trim_start_matches("model.").to_string();
        }
    });
    let logits = load(folder.path()).unwrap().logits(&batch()).unwrap();
    assert_eq!(logits, load(&case(CASE)).unwrap().logits(&batch()).unwrap());
}

#[test]
fn frequencies_in_the_file_are_left_alone() {
    let folder = changed(|tensors| {
        let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
        let description = json!({"dtype": "F32", "shape": [1]});
        tensors.push((name.into(), description, vec![0; 4]));
    });
    assert!(load(folder.path()).is_ok());
}

#[test]
fn frozen_weights_keep_their_type_and_trained_ones_become_f32() {
    let folder = changed(|tensors| {
        for (_, description, bytes) in tensors {
            // The upper half of an f32 is a bf16.
            description["dtype"] = "BF16".into();
            let words = bytes.as_chunks::<4>().0.iter();
            *bytes = words.flat_map(|word| [word[2], word[3]]).collect();
        }
    });
    let mut frozen = load(folder.path()).unwrap();
    let matrices = frozen.plan().buffers().iter();
    for buffer in matrices.filter(|b| b.purpose == Purpose::Weights) {
        let is_norm = buffer.name.ends_with("norm.weight");
        let expected = if is_norm { DType::F32 } else { DType::BF16 };
        assert_eq!(buffer.dtype, expected, "{}", buffer.name);
    }
    let options = LoadOptions::new(8);
    let full = TrainableModel::load(&cpu(1), folder.path(), &Training::Full, &options);
    let mut full = full.unwrap();
    for parameter in full.parameters() {
        assert_eq!(parameter.weight.dtype(), DType::F32, "{}", parameter.name);
    }
    let (a, b) = (
        frozen.logits(&batch()).unwrap(),
        full.logits(&batch()).unwrap(),
    );
    for (a, b) in a.iter().zip(&b) {
        let close = (a - b).abs() <= 1e-5;
        assert!(close, "{a} and {b}");
    }
}

#[test]
fn missing_unexpected_misshapen_and_foreign_tensors_are_named() {
    let folder = changed(|tensors| {
        tensors.remove(3);
    });
    assert!(matches!(
        load(folder.path()),
        Err(ModelError::Format(FormatError::Missing { .. }))
    ));
    let folder = changed(|tensors| {
        let description = json!({"dtype": "F32", "shape": [1]});
        tensors.push(("model.layers.7.more".into(), description, vec![0; 4]));
    });
    let error = load(folder.path()).unwrap_err();
    assert!(matches!(&error, ModelError::Unexpected { tensor, .. } if tensor.contains("more")));
    let folder = changed(|tensors| {
        let shape = tensors[1].1["shape"].as_array_mut().unwrap();
        shape.push(json!(1));
    });
    assert!(matches!(load(folder.path()), Err(ModelError::Shape { .. })));
    let folder = changed(|tensors| tensors[1].1["dtype"] = "I32".into());
    assert!(matches!(
        load(folder.path()),
        Err(ModelError::Format(FormatError::TensorDType { .. }))
    ));
    let folder = changed(|tensors| {
        let mut twice = tensors[1].clone();
        twice.0 = twice.0.trim_start_matches("model.").to_string();
        tensors.push(twice);
    });
    assert!(matches!(
        load(folder.path()),
        Err(ModelError::Format(FormatError::Duplicate { .. }))
    ));
}

#[test]
fn the_files_of_an_index_are_the_same_model() {
    let folder = copy(&case(CASE));
    let path = folder.path().join("model.safetensors");
    let all = tensors(&path);
    std::fs::remove_file(path).unwrap();
    let (first, second) = all.split_at(5);
    let mut map = serde_json::Map::new();
    for (file, part) in [("a.safetensors", first), ("b.safetensors", second)] {
        write_tensors(&folder.path().join(file), part);
        for (name, _, _) in part {
            map.insert(name.clone(), file.into());
        }
    }
    let index = json!({"metadata": {}, "weight_map": map});
    let path = folder.path().join("model.safetensors.index.json");
    std::fs::write(path, index.to_string()).unwrap();
    let logits = load(folder.path()).unwrap().logits(&batch()).unwrap();
    assert_eq!(logits, load(&case(CASE)).unwrap().logits(&batch()).unwrap());
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    for (key, value) in [
        ("model_type", json!("mamba")),
        ("model_type", Value::Null),
        ("hidden_act", json!("relu")),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(1u64 << 40)),
        ("hidden_size", json!("32")),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_key_value_heads", json!(3)),
        ("rms_norm_eps", json!(-1)),
        ("tie_word_embeddings", json!("yes")),
        ("attention_dropout", json!(0.1)),
        ("use_bidirectional_attention", json!(true)),
        ("num_local_experts", json!(8)),
        ("layer_types", json!(["full_attention"])),
        ("layer_types", json!(["full_attention", "linear_attention"])),
        ("partial_rotary_factor", json!(0.5)),
        ("vocab_size", Value::Null),
    ] {
        let folder = copy(&case(CASE));
        let file = folder.path().join("config.json");
        change_json(&file, |config| config[key] = value.clone());
        let error = load(folder.path()).unwrap_err();
        let named = matches!(&error, ModelError::Config { error, .. } if error.key == key);
        assert!(named, "{key} = {value}: {error}");
    }
    let folder = copy(&case(CASE));
    let file = folder.path().join("config.json");
    change_json(&file, |config| {
        config["rope_parameters"]["rope_type"] = "spiral".into()
    });
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("spiral"), "{error}");
}

#[test]
fn batches_that_do_not_fit_are_errors() {
    let mut model = load(&case(CASE)).unwrap();
    let batch = |tokens: Vec<u32>, labels: &[i64]| {
        let piece = Piece {
            sequence: 0,
            start: 0,
            length: tokens.len() as u32,
        };
        Batch::packed(&[Sequence::from_labels(tokens, labels).unwrap()], &[piece]).unwrap()
    };
    let long = batch(vec![1; 9], &[1; 9]);
    assert!(matches!(
        model.evaluate(&long),
        Err(ModelError::Capacity { .. })
    ));
    let id = batch(vec![1, 96], &[1, 2]);
    assert!(matches!(
        model.evaluate(&id),
        Err(ModelError::Token { index: 1, .. })
    ));
    let target = batch(vec![1, 2], &[1, 96]);
    assert!(matches!(
        model.evaluate(&target),
        Err(ModelError::Token { index: 0, .. })
    ));
}

/// Kind of each trained parameter, and its elements.
fn values(model: &mut TrainableModel<Cpu>) -> Vec<(ParameterKind, Vec<f32>)> {
    let parameters = model.parameters();
    let values = parameters.iter();
    values
        .map(|p| (p.kind, p.weight.to_vec().unwrap()))
        .collect()
}

#[test]
fn fresh_models_depend_on_the_seed_alone() {
    let config = tightrope_model::ModelConfig::read(&case("gemma2")).unwrap();
    let fresh = |seed, capacity| {
        let options = LoadOptions {
            seed,
            ..LoadOptions::new(capacity)
        };
        let model = TrainableModel::random(&cpu(1), config.clone(), &Training::Full, &options);
        values(&mut model.unwrap())
    };
    let one = fresh(1, 8);
    assert_eq!(one, fresh(1, 16));
    assert_ne!(one, fresh(2, 8));
    let of = |wanted| one.iter().filter(move |(kind, _)| *kind == wanted);
    let (_, embedding) = of(ParameterKind::Embedding).next().unwrap();
    let deviation = embedding.iter().map(|w| w * w).sum::<f32>() / embedding.len() as f32;
    assert!((deviation.sqrt() / 0.2 - 1.0).abs() < 0.1, "{deviation}");
    // Gemma's norms store w - 1.
    let mut norms = of(ParameterKind::Norm);
    assert!(norms.all(|(_, norm)| norm.iter().all(|&w| w == 0.0)));
    let lora = Training::Lora(LoraConfig {
        target_modules: TargetModules::list(["q_proj"]),
        ..LoraConfig::default()
    });
    let options = LoadOptions::new(8);
    let model = TrainableModel::random(&cpu(1), config.clone(), &lora, &options);
    let parameters = values(&mut model.unwrap());
    assert_eq!(parameters.len(), 2 * config.architecture().layers());
    let bound = 1.0 / (config.architecture().hidden as f32).sqrt();
    for (kind, weight) in parameters {
        match kind {
            ParameterKind::LoraA => {
                let largest = weight.iter().fold(0f32, |largest, w| largest.max(w.abs()));
                assert!(largest <= bound && largest > 0.8 * bound);
            }
            _ => assert!(weight.iter().all(|&w| w == 0.0)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_damage_panics(cut in 0usize..1 << 20, at in 0usize..3000, byte in any::<u8>()) {
        let good = std::fs::read(case(CASE).join("model.safetensors")).unwrap();
        let mut bytes = good.clone();
        bytes[at] = byte;
        let folder = copy(&case(CASE));
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let _ = load(folder.path());
        std::fs::write(&path, &good[..cut % good.len()]).unwrap();
        prop_assert!(load(folder.path()).is_err());
    }
}
