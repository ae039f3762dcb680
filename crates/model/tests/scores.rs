//! Models that score sequences: over all families, in every batching, on both devices, and through
//! files. `crates/run/tests/preference.rs` compares whole trajectories with TRL.

mod common;

use common::{batchings, cases, cpu, documents, files, training, whole};
use serde_json::{Value, json};
use std::path::Path;
use tightrope_model::{Backend, LoadOptions, Model, ModelConfig, TrainableModel};
use tightrope_packing::{Batch, Piece, Sequence};
use tightrope_testkit::cuda;

fn options(capacity: usize) -> LoadOptions {
    LoadOptions {
        score: true,
        seed: 3,
        ..LoadOptions::new(capacity)
    }
}

fn packed(sequences: &[Sequence]) -> Batch {
    let pieces: Vec<Piece> = (0..sequences.len()).map(|i| whole(sequences, i)).collect();
    Batch::packed(sequences, &pieces).unwrap()
}

/// Slopes of `Σ aᵢ·sᵢ`, whose gradient is compared.
fn slope(index: usize) -> f64 {
    [1.0, -0.7, 0.4][index % 3]
}

/// Scores of a pack, and all gradients.
fn step<D: Backend>(
    device: &D,
    case: &Path,
    lora: bool,
    batch: &Batch,
) -> (Vec<f64>, Vec<Vec<f32>>, TrainableModel<D>) {
    let options = options(batch.len());
    let mut model = TrainableModel::load(device, case, &training(lora), &options).unwrap();
    model.zero_gradients().unwrap();
    let mut slopes = |scores: &[f64], slopes: &mut [f64]| {
        assert_eq!(scores.len(), slopes.len());
        (0..slopes.len()).for_each(|index| slopes[index] = slope(index));
    };
    let scores = model.forward_backward_scores(batch, &mut slopes, 0);
    let parameters = model.parameters();
    let gradients = parameters.iter().map(|p| p.gradient.to_vec().unwrap());
    let gradients = gradients.collect();
    (scores.unwrap(), gradients, model)
}

/// Every case whose family has sequence classifiers.
fn families() -> impl Iterator<Item = std::path::PathBuf> {
    let without = ["granite", "hyperclovax"];
    let has = move |case: &std::path::PathBuf| !without.iter().any(|name| case.ends_with(name));
    cases().into_iter().filter(has)
}

#[test]
fn scores_are_the_same_bits_in_every_batch_and_gradients_their_derivatives() {
    for case in families() {
        let sequences = documents(&case);
        let batch = packed(&sequences);
        let (scores, gradients, mut model) = step(&cpu(2), &case, false, &batch);
        assert!(
            scores
                .iter()
                .all(|score| score.is_finite() && *score != 0.0)
        );
        for (way, batches) in batchings(&sequences) {
            let capacity = batches.iter().map(Batch::len).max().unwrap();
            let mut own = Model::load(&cpu(1), &case, &options(capacity)).unwrap();
            let found = batches.iter().flat_map(|batch| own.scores(batch).unwrap());
            let mut found: Vec<f64> = found.collect();
            if way == "reversed" {
                found.reverse();
            }
            assert_eq!(found, scores, "{}, {way}", case.display());
        }
        // Along the gradient, the sum grows by its squared length.
        let squares = gradients.iter().flatten().map(|&g| f64::from(g).powi(2));
        let length = squares.sum::<f64>().sqrt();
        let sum = |scores: &[f64]| -> f64 {
            let weighted = scores.iter().enumerate().map(|(i, s)| slope(i) * s);
            weighted.sum()
        };
        let mut at = |move_by: f64| {
            for (parameter, gradient) in model.parameters().into_iter().zip(&gradients) {
                let mut values = parameter.weight.to_vec::<f32>().unwrap();
                for (value, g) in values.iter_mut().zip(gradient) {
                    *value += (move_by / length) as f32 * g;
                }
                parameter.weight.write(&values).unwrap();
            }
            sum(&model.scores(&batch).unwrap())
        };
        let step = 2e-3;
        let (up, down) = (at(step), at(-2.0 * step));
        let slope = (up - down) / (2.0 * step);
        let error = (slope / length - 1.0).abs();
        assert!(error < 5e-3, "{}: {slope} {length}", case.display());
    }
}

#[test]
fn an_emulated_gpu_computes_the_same() {
    for case in families().filter(|case| case.ends_with("gemma2") || case.ends_with("qwen2_tied")) {
        let batch = packed(&documents(&case));
        for lora in [false, true] {
            let (scores, gradients, _) = step(&cpu(1), &case, lora, &batch);
            let (others, same, _) = step(cuda(), &case, lora, &batch);
            for (a, b) in scores.iter().zip(&others) {
                assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} {b}");
            }
            let (a, b) = (gradients.concat(), same.concat());
            assert_eq!(a.len(), b.len());
            let distance = tightrope_testkit::relative_distance(
                &a,
                &b.into_iter().map(f64::from).collect::<Vec<_>>(),
            );
            assert!(distance < 1e-4, "{distance}");
        }
    }
}

/// A new head is saved with the model, as Transformers reads it, and read from there.
#[test]
fn a_head_goes_through_files() {
    let case = files::case("qwen2_tied");
    let batch = packed(&documents(&case));
    let mut model = Model::load(&cpu(1), &case, &options(batch.len())).unwrap();
    let before = model.scores(&batch).unwrap();
    model.name_padding(7);
    let folder = tempfile::tempdir().unwrap();
    model.save_merged(folder.path()).unwrap();
    let config = std::fs::read(folder.path().join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        config["architectures"],
        json!(["Qwen2ForSequenceClassification"])
    );
    assert_eq!(config["id2label"], json!({ "0": "LABEL_0" }));
    // The case names another.
    assert!(config["pad_token_id"].is_u64());
    let names = files::tensors(&folder.path().join("model.safetensors"));
    assert!(names.iter().any(|tensor| tensor.0 == "score.weight"));
    // The seed makes no difference to a head that exists.
    let plain = LoadOptions::new(batch.len());
    let mut again = Model::load(&cpu(1), folder.path(), &plain).unwrap();
    assert_eq!(again.scores(&batch).unwrap(), before);
    for error in [
        again.evaluate(&batch).unwrap_err().to_string(),
        again.logits(&batch).unwrap_err().to_string(),
        again.cache(9).unwrap_err().to_string(),
    ] {
        assert!(error.contains("no probabilities of tokens"), "{error}");
    }
    let mut predicts = Model::load(&cpu(1), &case, &plain).unwrap();
    let error = predicts.scores(&batch).unwrap_err().to_string();
    assert!(error.contains("no head that scores"), "{error}");
}

/// The last token that is not the padding token is scored, which may be one that sequences share.
#[test]
fn the_padding_token_is_not_scored() {
    let case = files::case("qwen2_tied");
    let of = |ids: &[u32], pad: Value| {
        let folder = files::copy(&case);
        let config = folder.path().join("config.json");
        files::change_json(&config, |config| config["pad_token_id"] = pad);
        let labels = vec![1; ids.len()];
        let sequence = Sequence::from_labels(ids.to_vec(), &labels).unwrap();
        let batch = packed(&[sequence]);
        let mut model = Model::load(&cpu(1), folder.path(), &options(9)).unwrap();
        model.scores(&batch).unwrap()[0]
    };
    let whole = of(&[5, 6, 8, 9], Value::Null);
    assert_ne!(of(&[5, 6, 8, 9, 9, 9], Value::Null), whole);
    assert_eq!(of(&[5, 6, 8, 9, 4, 4], json!(4)), whole);
    assert_eq!(of(&[4, 4], json!(4)), of(&[4, 4], Value::Null));
}

#[test]
fn other_classifiers_are_refused() {
    let case = files::case("qwen2_tied");
    let settings = std::fs::read(case.join("config.json")).unwrap();
    let mut settings: Value = serde_json::from_slice(&settings).unwrap();
    settings["architectures"] = json!(["Qwen2ForSequenceClassification"]);
    let error = ModelConfig::from_json(&settings).unwrap_err().to_string();
    assert!(error.contains("2 labels are not supported"), "{error}");
    settings["id2label"] = json!({ "0": "a", "1": "b", "2": "c" });
    let error = ModelConfig::from_json(&settings).unwrap_err().to_string();
    assert!(error.contains("3 labels are not supported"), "{error}");
    let granite = files::case("granite");
    let error = Model::load(&cpu(1), &granite, &options(9)).unwrap_err();
    assert!(
        error.to_string().contains("`granite` cannot score"),
        "{error}"
    );
}
