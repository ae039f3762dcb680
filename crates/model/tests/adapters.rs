//! Reading and writing PEFT adapters, and merged models.

mod common;

use common::{
    batchings, cases, cpu, documents,
    files::{case, change_json, copy, tensors, write_tensors},
    options,
};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_formats::FormatError;
use tightrope_model::{
    LoadOptions, LoraConfig, Model, ModelError, TargetModules, TrainableModel, Training,
};

const CASE: &str = "llama_biases";
const CONFIG: &str = "adapter/adapter_config.json";
const FACTORS: &str = "adapter/adapter_model.safetensors";

fn load_with(folder: &Path) -> Result<Model<Cpu>, ModelError> {
    let sequences = documents(&case(CASE));
    Model::load(&cpu(1), folder, &options(folder, true, &sequences))
}

fn fresh(lora: LoraConfig) -> Result<TrainableModel<Cpu>, ModelError> {
    let options = LoadOptions {
        seed: 3,
        ..LoadOptions::new(8)
    };
    TrainableModel::load(&cpu(1), &case(CASE), &Training::Lora(lora), &options)
}

fn settings(folder: &Path) -> Value {
    let bytes = std::fs::read(folder.join("adapter_config.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_saved_adapter_is_the_one_that_was_loaded() {
    for case in cases() {
        let sequences = documents(&case);
        let model = Model::load(&cpu(1), &case, &options(&case, true, &sequences)).unwrap();
        let folder = TempDir::new().unwrap();
        model.save_adapter(folder.path()).unwrap();
        let mut expected = tensors(&case.join(FACTORS));
        let mut saved = tensors(&folder.path().join("adapter_model.safetensors"));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        saved.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(expected.len(), saved.len());
        for (expected, saved) in expected.iter().zip(&saved) {
            assert_eq!(
                (&expected.0, &expected.1["shape"]),
                (&saved.0, &saved.1["shape"])
            );
            assert!(expected.2 == saved.2, "{}", expected.0);
        }
        assert_eq!(
            settings(folder.path())["r"],
            settings(&case.join("adapter"))["r"]
        );
    }
}

#[test]
fn saving_twice_gives_the_same_bytes_and_nothing_else() {
    let model = fresh(LoraConfig::default()).unwrap();
    let folders = [(); 2].map(|()| {
        let folder = TempDir::new().unwrap();
        model.save_adapter(folder.path()).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (
                    path.file_name().unwrap().to_owned(),
                    std::fs::read(path).unwrap(),
                )
            })
            .collect();
        files.sort();
        files
    });
    assert_eq!(folders[0].len(), 2);
    assert!(folders[0] == folders[1]);
    let missing = Path::new("/nonexistent/folder");
    assert!(matches!(
        model.save_adapter(missing),
        Err(ModelError::Format(FormatError::Io { .. }))
    ));
}

#[test]
fn a_fresh_adapter_says_what_peft_needs() {
    let model = fresh(LoraConfig {
        r: 5,
        alpha: 7.5,
        dropout: 0.1,
        rslora: true,
        ..LoraConfig::default()
    })
    .unwrap();
    let folder = TempDir::new().unwrap();
    model.save_adapter(folder.path()).unwrap();
    let settings = settings(folder.path());
    for (key, value) in [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("r", json!(5)),
        ("lora_alpha", json!(7.5)),
        ("lora_dropout", json!(0.1)),
        ("use_rslora", json!(true)),
        ("bias", json!("none")),
        (
            "target_modules",
            json!([
                "down_proj",
                "gate_proj",
                "k_proj",
                "o_proj",
                "q_proj",
                "up_proj",
                "v_proj"
            ]),
        ),
    ] {
        assert_eq!(settings[key], value, "{key}");
    }
    let saved = tensors(&folder.path().join("adapter_model.safetensors"));
    assert_eq!(saved.len(), 2 * 7 * 2);
    assert!(
        saved
            .iter()
            .all(|(name, _, _)| name.starts_with("base_model.model.model.layers."))
    );
}

#[test]
fn targets_that_name_nothing_are_errors_of_the_run() {
    for (targets, expected) in [
        (vec!["q_porj".to_string()], "did you mean `q_proj`?"),
        (
            vec!["q_proj".into(), "mlp.up".into()],
            "`mlp.up`: it names no linear layer",
        ),
        (
            vec!["model.layers.1.mlp.up_prj".into()],
            "did you mean `model.layers.1.mlp.up_proj`?",
        ),
        (
            vec!["mlp".into()],
            "`model.layers.0.mlp`: it is no linear layer",
        ),
        (
            vec!["qqq".into()],
            "; there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        ),
        (vec![], "is empty"),
    ] {
        let error = fresh(LoraConfig {
            target_modules: TargetModules::list(targets),
            ..LoraConfig::default()
        });
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("`lora.target_modules`: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    for (r, dropout, key) in [
        (0, 0.0, "`lora.r`"),
        (4, 1.0, "`lora.dropout`"),
        (4, f32::NAN, "`lora.dropout`"),
    ] {
        let error = fresh(LoraConfig {
            r,
            dropout,
            ..LoraConfig::default()
        });
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    }
}

#[test]
fn what_peft_can_and_this_cannot_is_refused_by_name() {
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("bias", json!("some")),
        ("modules_to_save", json!(["mlp"])),
        ("modules_to_save", json!(["lm_haed"])),
        ("fan_in_fan_out", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("some_future_setting", json!({"on": 1})),
        ("lora_alpha", Value::Null),
        ("r", json!(0)),
        ("exclude_modules", json!(["q_proj"])),
        ("layers_to_transform", json!([5])),
        ("layers_to_transform", json!(0)),
    ] {
        let folder = copy(&case(CASE));
        change_json(&folder.path().join(CONFIG), |config| {
            // Layers do not restrict modules that are named in full.
            if key == "layers_to_transform" {
                let short = ["q", "k", "v", "o", "up", "gate", "down"];
                config["target_modules"] = json!(short.map(|name| format!("{name}_proj")));
            }
            config[key] = value.clone()
        });
        let error = load_with(folder.path()).unwrap_err();
        let named = matches!(&error, ModelError::Config { error, .. } if error.key == key);
        assert!(named, "{key}: {error}");
    }
}

#[test]
fn adapters_of_other_models_are_errors() {
    // Another number of layers, another width.
    let folder = copy(&case(CASE));
    for name in [CONFIG, FACTORS] {
        std::fs::copy(case("gemma2").join(name), folder.path().join(name)).unwrap();
    }
    assert!(matches!(
        load_with(folder.path()),
        Err(ModelError::Unexpected { .. })
    ));
    let folder = copy(&case(CASE));
    for name in [CONFIG, FACTORS] {
        std::fs::copy(case("llama_yarn").join(name), folder.path().join(name)).unwrap();
    }
    assert!(matches!(
        load_with(folder.path()),
        Err(ModelError::Shape { .. })
    ));
    // Half of a pair, and a pair less than the list says.
    let less = |keep: fn(&str) -> bool| {
        let folder = copy(&case(CASE));
        let path = folder.path().join(FACTORS);
        let mut all = tensors(&path);
        all.retain(|(name, _, _)| keep(name));
        write_tensors(&path, &all);
        load_with(folder.path()).unwrap_err()
    };
    let half = less(|name| !name.contains("layers.1.mlp.up_proj.lora_B"));
    assert!(matches!(
        half,
        ModelError::Format(FormatError::Missing { .. })
    ));
    let pair = less(|name| !name.contains("layers.1.mlp.up_proj"));
    assert!(matches!(pair, ModelError::Config { .. }));
}

#[test]
fn expressions_and_patterns_are_understood() {
    let (_, batches) = batchings(&documents(&case(CASE))).remove(0);
    let plain = load_with(&case(CASE)).unwrap().logits(&batches[0]).unwrap();
    // An expression selects the modules in the file.
    let folder = copy(&case(CASE));
    change_json(&folder.path().join(CONFIG), |config| {
        config["target_modules"] = json!(".*(self_attn|mlp).*_proj");
    });
    let logits = load_with(folder.path())
        .unwrap()
        .logits(&batches[0])
        .unwrap();
    assert_eq!(plain, logits);
    // Twice the α everywhere, by pattern, is twice the factor B.
    let folder = copy(&case(CASE));
    change_json(&folder.path().join(CONFIG), |config| {
        config["alpha_pattern"] = json!({"q_proj": 16, "mlp.down_proj": 16});
    });
    let by_pattern = load_with(folder.path())
        .unwrap()
        .logits(&batches[0])
        .unwrap();
    let doubled = copy(&case(CASE));
    let path = doubled.path().join(FACTORS);
    let mut all = tensors(&path);
    for (name, _, bytes) in &mut all {
        let chosen = name.contains("q_proj") || name.contains("down_proj");
        if chosen && name.contains("lora_B") {
            let words = bytes.as_chunks::<4>().0.iter().copied();
            let twice = words.flat_map(|word| (2.0 * f32::from_le_bytes(word)).to_le_bytes());
            *bytes = twice.collect();
        }
    }
    write_tensors(&path, &all);
    let by_hand = load_with(doubled.path())
        .unwrap()
        .logits(&batches[0])
        .unwrap();
    for (a, b) in by_pattern.iter().zip(&by_hand) {
        let close = (a - b).abs() <= 1e-5;
        assert!(close, "{a} and {b}");
    }
    assert_ne!(plain, by_pattern);
}

#[test]
fn rank_stabilised_adapters_scale_by_the_root() {
    let (_, batches) = batchings(&documents(&case(CASE))).remove(0);
    let change = |change: fn(&mut Value)| {
        let folder = copy(&case(CASE));
        change_json(&folder.path().join(CONFIG), change);
        load_with(folder.path())
            .unwrap()
            .logits(&batches[0])
            .unwrap()
    };
    // r is 3: α/√3 with α = 8 is α/3 with α = 8·√3.
    let root = change(|config| config["use_rslora"] = json!(true));
    let plain = change(|config| config["lora_alpha"] = json!(8.0 * 3f64.sqrt()));
    for (a, b) in root.iter().zip(&plain) {
        let close = (a - b).abs() <= 1e-5;
        assert!(close, "{a} and {b}");
    }
}

#[test]
fn a_merged_model_has_the_logits_of_model_and_adapter() {
    for case in cases() {
        let sequences = documents(&case);
        let (_, batches) = batchings(&sequences).remove(0);
        for lora in [true, false] {
            let mut model = Model::load(&cpu(1), &case, &options(&case, lora, &sequences)).unwrap();
            let expected = model.logits(&batches[0]).unwrap();
            let folder = TempDir::new().unwrap();
            model.save_merged(folder.path()).unwrap();
            let options = LoadOptions {
                adapter: None,
                ..options(&case, false, &sequences)
            };
            let mut merged = Model::load(&cpu(1), folder.path(), &options).unwrap();
            let logits = merged.logits(&batches[0]).unwrap();
            for (a, b) in logits.iter().zip(&expected) {
                let close = (a - b).abs() <= if lora { 2e-5 * b.abs().max(1.0) } else { 0.0 };
                assert!(close, "{case:?}: {a} and {b}");
            }
        }
    }
}

#[test]
fn an_adapter_and_full_training_exclude_each_other() {
    let sequences = documents(&case(CASE));
    let options = options(&case(CASE), true, &sequences);
    let error = TrainableModel::load(&cpu(1), &case(CASE), &Training::Full, &options);
    assert!(matches!(error, Err(ModelError::Unsupported(_))));
    let options = LoadOptions {
        adapter: None,
        ..options
    };
    let model = Model::load(&cpu(1), &case(CASE), &options).unwrap();
    let folder = TempDir::new().unwrap();
    assert!(matches!(
        model.save_adapter(folder.path()),
        Err(ModelError::Unsupported(_))
    ));
}
