//! GGUF files give the same model as Transformers' files, and damaged ones give errors.

mod common;

use common::{
    batchings, cases, cpu, documents,
    files::{GgufWriter, case, change_json, convert, copy},
    options,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_formats::FormatError;
use tightrope_model::{LoadOptions, Model, ModelConfig, ModelError};

fn write(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn load(path: &Path) -> Result<Model<Cpu>, ModelError> {
    let options = LoadOptions::new(64);
    Model::load(&cpu(1), path, &options)
}

fn load_error(gguf: &GgufWriter) -> ModelError {
    let (_folder, path) = write(&gguf.bytes());
    load(&path).unwrap_err()
}

#[test]
fn every_case_gives_the_same_logits_from_gguf() {
    let mut compared = 0;
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        // Facts that GGUF files cannot express: the layers with windows, scalings by length, the
        // scalar.
        let config = ModelConfig::read(&case).unwrap();
        let windows = &config.architecture().windows;
        let unsaid = config.model_type().starts_with("qwen") && windows.iter().any(Option::is_some);
        let scaled = ["dynamic", "longrope", "llama3_"]
            .iter()
            .any(|part| name.contains(part));
        let own = ["gemma2", "gemma3", "smollm3", "smollm3_window"];
        let without = ["exaone4", "hyperclovax", "olmo3", "seed_oss"];
        if unsaid || scaled || own.into_iter().chain(without).any(|other| other == name) {
            continue;
        }
        let sequences = documents(&case);
        let options = LoadOptions {
            adapter: None,
            ..options(&case, false, &sequences)
        };
        let (_folder, path) = write(&convert(&case).bytes());
        let (_, batches) = batchings(&sequences).remove(0);
        let [mut plain, mut gguf] =
            [&case, &path].map(|path| Model::load(&cpu(1), path, &options).unwrap());
        let (plain, gguf) = (
            plain.logits(&batches[0]).unwrap(),
            gguf.logits(&batches[0]).unwrap(),
        );
        for (a, b) in plain.iter().zip(&gguf) {
            let close = (a - b).abs() <= 1e-5 * a.abs().max(1.0);
            assert!(close, "{name}: {a} and {b}");
        }
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
}

#[test]
fn every_fourth_layer_of_smollm3_does_not_rotate() {
    let case = case("smollm3");
    // The case has three layers; the file cannot say which of them rotate.
    let folder = copy(&case);
    change_json(&folder.path().join("config.json"), |config| {
        config.as_object_mut().unwrap().remove("no_rope_layers");
        config["no_rope_layer_interval"] = 4.into();
    });
    let (_folder, path) = write(&convert(&case).bytes());
    let sequences = documents(&case);
    let (_, batches) = batchings(&sequences).remove(0);
    let logits = |path: &Path| {
        let model = Model::load(&cpu(1), path, &LoadOptions::new(128));
        model.unwrap().logits(&batches[0]).unwrap()
    };
    let (plain, gguf) = (logits(folder.path()), logits(&path));
    assert_ne!(plain, logits(&case));
    for (a, b) in plain.iter().zip(&gguf) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} and {b}");
    }
    change_json(&folder.path().join("config.json"), |config| {
        config["num_hidden_layers"] = 8.into();
    });
    let (_folder, path) = write(&convert(folder.path()).bytes());
    let config = ModelConfig::read(&path).unwrap();
    let still = [true, true, true, false].repeat(2);
    assert_eq!(config.architecture().rotated, still);
}

#[test]
fn what_a_file_of_granite_or_smollm3_says_beyond_is_refused() {
    let mut still = convert(&case("granite"));
    still.flag("granite.rope.scaling.finetuned", false);
    let error = load_error(&still).to_string();
    assert!(error.contains("finetuned"), "{error}");
    let mut window = convert(&case("smollm3"));
    window.number("smollm3.attention.sliding_window", 8);
    let error = load_error(&window).to_string();
    assert!(error.contains("sliding_window"), "{error}");
}

#[test]
fn gemma_2_reads_windows_caps_and_its_scalar() {
    let (_folder, path) = write(&convert(&case("gemma2")).bytes());
    let read = ModelConfig::read(&path).unwrap();
    let expected = ModelConfig::read(&case("gemma2")).unwrap();
    let (read, mut expected) = (read.architecture().clone(), expected.architecture().clone());
    // The file does not hold the scalar: the head's dimension in all but the 27B model.
    expected.attention_scale = (expected.head_dim as f64).powf(-0.5) as f32;
    expected.initializer_range = read.initializer_range;
    assert_eq!(read, expected);
}

#[test]
fn gemma_3_reads_windows_and_both_frequencies() {
    let (_folder, path) = write(&convert(&case("gemma3")).bytes());
    let read = ModelConfig::read(&path).unwrap();
    let expected = ModelConfig::read(&case("gemma3")).unwrap();
    let (read, mut expected) = (read.architecture().clone(), expected.architecture().clone());
    // The file does not hold the scalar, and every sixth layer sees all.
    expected.attention_scale = (expected.head_dim as f64).powf(-0.5) as f32;
    expected.windows = vec![Some(6); 3];
    expected.initializer_range = read.initializer_range;
    assert_eq!(read, expected);
    // The logits are those of a folder with these settings.
    let folder = copy(&case("gemma3"));
    change_json(&folder.path().join("config.json"), |config| {
        config["query_pre_attn_scalar"] = expected.head_dim.into();
        config["layer_types"] = vec!["sliding_attention"; 3].into();
    });
    let (_, batches) = batchings(&documents(&case("gemma3"))).remove(0);
    let logits = |path: &Path| {
        let model = Model::load(&cpu(1), path, &LoadOptions::new(128));
        model.unwrap().logits(&batches[0]).unwrap()
    };
    for (a, b) in logits(folder.path()).iter().zip(logits(&path)) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} and {b}");
    }
}

#[test]
fn factors_of_frequencies_are_llama_3_scaling() {
    let llama3 = case("llama3_rope_scaled");
    let sequences = documents(&llama3);
    // As llama.cpp's converter computes them.
    let (theta, factor, low, high, original) = (500_000f64, 8.0, 1.0, 4.0, 64.0);
    let factors: Vec<f32> = (0..8)
        .map(|i| {
            let wavelength = std::f64::consts::TAU * theta.powf(2.0 * f64::from(i) / 16.0);
            let (short, long) = (original / high, original / low);
            let smooth = (original / wavelength - low) / (high - low);
            match wavelength {
                w if w < short => 1.0,
                w if w > long => factor as f32,
                _ => (1.0 / ((1.0 - smooth) / factor + smooth)) as f32,
            }
        })
        .collect();
    let mut gguf = convert(&llama3);
    gguf.tensor("rope_freqs.weight", &[8], &factors);
    let (_folder, path) = write(&gguf.bytes());
    let (_, batches) = batchings(&sequences).remove(0);
    let options = LoadOptions {
        adapter: None,
        ..options(&llama3, false, &sequences)
    };
    let [plain, gguf] = [&llama3, &path].map(|path| {
        let mut model = Model::load(&cpu(1), path, &options).unwrap();
        model.logits(&batches[0]).unwrap()
    });
    for (a, b) in plain.iter().zip(&gguf) {
        let close = (a - b).abs() <= 1e-4;
        assert!(close, "{a} and {b}");
    }
}

#[test]
fn every_end_of_a_turn_is_an_end_of_the_model() {
    let mut gguf = convert(&case("llama_linear"));
    gguf.metadata
        .retain(|(key, _, _)| key != "tokenizer.ggml.eos_token_id");
    gguf.number("tokenizer.ggml.eot_token_id", 7);
    let (_folder, path) = write(&gguf.bytes());
    assert_eq!(load(&path).unwrap().config().eos_token_ids(), [7]);
    gguf.number("tokenizer.ggml.eos_token_id", 9);
    let (_folder, path) = write(&gguf.bytes());
    let model = load(&path).unwrap();
    assert_eq!(model.config().eos_token_ids(), [7, 9]);
    // Others stop there too.
    let folder = tempfile::tempdir().unwrap();
    model.save_merged(folder.path()).unwrap();
    let text = std::fs::read(folder.path().join("generation_config.json")).unwrap();
    let generation: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(generation["eos_token_id"], serde_json::json!([7, 9]));
}

#[test]
fn files_of_another_model_are_errors() {
    let again = || convert(&case("llama_linear"));
    let mut gguf = again();
    gguf.tensors
        .retain(|(name, ..)| name != "blk.1.attn_q.weight");
    assert!(matches!(
        load_error(&gguf),
        ModelError::Format(FormatError::Missing { .. })
    ));
    let mut gguf = again();
    gguf.tensor("blk.0.ffn_gate_inp.weight", &[1], &[0.0]);
    assert!(matches!(load_error(&gguf), ModelError::Unexpected { .. }));
    let mut gguf = again();
    gguf.tensors[0].1 = vec![gguf.tensors[0].1.iter().product()];
    assert!(matches!(load_error(&gguf), ModelError::Shape { .. }));
}

#[test]
fn unknown_architectures_and_settings_are_named() {
    for (key, value, expected) in [
        ("general.architecture", "mamba", "mamba"),
        (
            "llama.rope.scaling.type",
            "spiral",
            "llama.rope.scaling.type",
        ),
    ] {
        let mut gguf = convert(&case("llama_linear"));
        gguf.metadata.retain(|(other, _, _)| other != key);
        gguf.text(key, value);
        let error = load_error(&gguf).to_string();
        assert!(error.contains(expected), "{error}");
    }
    for key in [
        "llama.embedding_length",
        "llama.block_count",
        "llama.attention.layer_norm_rms_epsilon",
    ] {
        let mut gguf = convert(&case("llama_linear"));
        gguf.metadata.retain(|(other, _, _)| other != key);
        let error = load_error(&gguf).to_string();
        assert!(error.contains(key), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_damage_panics(cut in 0usize..1 << 20, at in 0usize..2000, byte in any::<u8>()) {
        let mut bytes = convert(&case("llama_linear")).bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let (_folder, path) = write(&bytes);
        let _ = load(&path);
        bytes.truncate(cut % bytes.len());
        let (_folder, path) = write(&bytes);
        prop_assert!(load(&path).is_err());
    }
}
