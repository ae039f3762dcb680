//! GGUF files that are written give the same model when they are read, and what they cannot say is
//! refused by name.
//!
//! With `TIGHTROPE_GGUF_FOLDER` in the environment, the files and their logits are left in that folder,
//! for `golden/llama_cpp.py`, which compares them with llama.cpp.

mod common;

use common::{
    batchings, cases, cpu, documents,
    files::{case, change_json, copy},
    options,
};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_formats::{
    Tensors,
    gguf::{FileType, Gguf, Value},
};
use tightrope_model::{
    GgufSummary, LoadOptions, LoraConfig, Model, ModelError, TrainableModel, Training,
};

/// Metadata of a file without a tokenizer, for llama.cpp.
fn nothing() -> [(String, Value); 1] {
    [("tokenizer.ggml.model".into(), Value::Text("none".into()))]
}

fn load(path: &Path) -> Model<Cpu> {
    Model::load(&cpu(1), path, &LoadOptions::new(512)).unwrap()
}

fn save(model: &Model<Cpu>, path: &Path, file_type: FileType) -> Result<GgufSummary, ModelError> {
    model.save_gguf(path, file_type, &nothing())
}

fn logits(model: &mut Model<Cpu>, case: &Path) -> Vec<f32> {
    let (_, batches) = batchings(&documents(case)).remove(0);
    model.logits(&batches[0]).unwrap()
}

/// A case whose file can say everything, if it is not so already.
fn sayable(case: &Path) -> Option<TempDir> {
    let name = case.file_name()?.to_str()?;
    let change: fn(&mut Json) = match name {
        // llama.cpp takes the size of a head.
        "gemma2" | "gemma3" => {
            |config| config["query_pre_attn_scalar"] = config["head_dim"].clone()
        }
        // It rotates in all but every fourth layer, and has no windows.
        "smollm3" | "smollm3_window" => |config| {
            config["no_rope_layers"] = Json::Null;
            config["no_rope_layer_interval"] = json!(4);
            config["use_sliding_window"] = json!(false);
        },
        // It has windows with 64 layers only, and rotates in every layer of others.
        "exaone4" => |config| config["sliding_window"] = Json::Null,
        "qwen2_windows" | "qwen3_window" => |config| {
            config["use_sliding_window"] = json!(false);
            config["layer_types"] = Json::Null;
        },
        _ => return None,
    };
    let folder = copy(case);
    change_json(&folder.path().join("config.json"), change);
    Some(folder)
}

/// Leaves a file with its logits for llama.cpp.
fn leave(name: &str, model: &mut Model<Cpu>) {
    let Some(folder) = std::env::var_os("TIGHTROPE_GGUF_FOLDER").map(PathBuf::from) else {
        return;
    };
    let path = folder.join(format!("{name}.gguf"));
    save(model, &path, FileType::F32).unwrap();
    // Without a tokenizer, llama.cpp has the size of the vocabulary from a key, which some files have.
    let gguf = Gguf::open(&path).unwrap();
    let architecture = gguf.metadata.text("general.architecture").unwrap();
    let key = format!("{}.vocab_size", architecture.unwrap());
    if gguf.metadata.get(&key).is_none() {
        let rows = model.config().architecture().vocabulary as u32;
        let more = [&nothing()[..], &[(key, Value::U32(rows))]].concat();
        model.save_gguf(&path, FileType::F32, &more).unwrap();
    }
    // It has no windows in files of Mistral: no text is longer than those.
    let length = if name.starts_with("mistral") { 9 } else { 25 };
    let ids: Vec<u32> = (1..length).map(|i| i * 7 % 90 + 1).collect();
    let labels: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
    let sequence = tightrope_packing::Sequence::from_labels(ids.clone(), &labels).unwrap();
    let (_, batches) = batchings(&[sequence]).remove(0);
    let logits = model.logits(&batches[0]).unwrap();
    let text = json!({ "ids": ids, "logits": logits }).to_string();
    std::fs::write(folder.join(format!("{name}.json")), text).unwrap();
}

#[test]
fn every_family_is_written_and_read_back() {
    // Frequencies of the first pass through factors in f32.
    let close = ["llama3_rope_scaled"];
    let refused = [
        ("hyperclovax", "does not know the family"),
        ("llama_dynamic", "the frequencies"),
        ("llama_longrope", "the frequencies"),
        ("qwen3_window", "biases after attention"),
    ];
    let mut compared = 0;
    for original in cases() {
        let name = original.file_name().unwrap().to_str().unwrap().to_owned();
        let changed = sayable(&original);
        let case = changed.as_ref().map_or(&*original, TempDir::path);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.gguf");
        let mut plain = load(case);
        let written = save(&plain, &path, FileType::F32);
        if let Some((_, reason)) = refused.iter().find(|(other, _)| *other == name) {
            let error = written.unwrap_err().to_string();
            assert!(error.contains(reason), "{name}: {error}");
            assert!(!path.exists(), "{name}");
            continue;
        }
        let written = written.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(written.fallbacks, [], "{name}");
        assert_eq!(
            written.notes.len(),
            usize::from(name.starts_with("mistral")),
            "{name}"
        );
        let mut read = load(&path);
        let same = ["olmo3", "mistral"]
            .iter()
            .all(|own| !name.starts_with(own));
        if !same {
            assert_eq!(read.config().model_type(), plain.config().model_type());
        }
        let (before, after) = (logits(&mut plain, &original), logits(&mut read, &original));
        for (a, b) in before.iter().zip(&after) {
            match close.contains(&&*name) {
                true => assert!((a - b).abs() <= 1e-4, "{name}: {a} and {b}"),
                false => assert_eq!(a.to_bits(), b.to_bits(), "{name}: {a} and {b}"),
            }
        }
        leave(&name, &mut plain);
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}

#[test]
fn what_a_file_cannot_say_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    for (name, reason) in [
        ("gemma2", "the factor of scores"),
        ("gemma3", "the factor of scores"),
        ("smollm3", "which layers rotate"),
        ("smollm3_window", "the windows of its layers"),
        ("exaone4", "the windows of its layers"),
        ("qwen2_windows", "the windows of its layers"),
    ] {
        let error = save(&load(&case(name)), &path, FileType::F32).unwrap_err();
        assert!(matches!(error, ModelError::NotInGguf { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
    // A head of its own in a family without one.
    let changed = copy(&case("gemma_one_kv_head"));
    change_json(&changed.path().join("config.json"), |config| {
        config["tie_word_embeddings"] = json!(true);
    });
    let options = LoadOptions::new(1);
    let training = Training::Lora(LoraConfig {
        modules_to_save: vec!["embed_tokens".into()],
        ..LoraConfig::default()
    });
    let model = TrainableModel::load(&cpu(1), changed.path(), &training, &options).unwrap();
    let error = save(&model, &path, FileType::F32).unwrap_err().to_string();
    assert!(error.contains("a head beside the embedding"), "{error}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn types_are_what_the_tensors_get_and_errors_are_small() {
    let original = case("llama_gqa_tied");
    let folder = TempDir::new().unwrap();
    let mut plain = load(&original);
    let before = logits(&mut plain, &original);
    let size = |values: &[f32]| values.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    // Largest error of the logits, relative to their size, and the encoding of a matrix of 64 columns.
    for (file_type, largest, encoding) in [
        (FileType::F32, 0.0, "F32"),
        (FileType::F16, 3e-3, "F16"),
        (FileType::Bf16, 3e-2, "BF16"),
        (FileType::Q8_0, 0.06, "Q8_0"),
        (FileType::Q6K, 0.06, "Q8_0"),
        (FileType::Q5KM, 0.2, "Q5_1"),
        (FileType::Q4KM, 0.4, "Q5_0"),
        (FileType::Q4_0, 0.8, "Q4_0"),
    ] {
        let path = folder.path().join(format!("{}.gguf", file_type.name()));
        let summary = save(&plain, &path, file_type).unwrap();
        assert!(summary.tensors.contains_key(encoding), "{summary:?}");
        let names = summary.fallbacks.iter().map(|f| f.tensor.as_str());
        let fell = names.filter(|name| name.contains("blk.0.attn_q")).count();
        let wide = matches!(file_type, FileType::Q6K | FileType::Q5KM | FileType::Q4KM);
        assert_eq!(fell, usize::from(wide), "{summary:?}");
        let gguf = Gguf::open(&path).unwrap();
        let id = gguf.metadata.get("general.file_type").unwrap().as_integer();
        assert_eq!(id, Some(file_type.id().into()));
        let after = logits(&mut load(&path), &original);
        let difference: Vec<f32> = before.iter().zip(&after).map(|(a, b)| a - b).collect();
        let error = size(&difference) / size(&before);
        assert!(error <= largest, "{}: {error}", file_type.name());
        assert!(largest == 0.0 || error > 0.0);
    }
}

#[test]
fn an_adapter_is_added_before_anything_is_rounded() {
    for name in ["qwen3_qk_norm", "llama_gqa_tied"] {
        let original = case(name);
        let sequences = documents(&original);
        let mut adapted =
            Model::load(&cpu(1), &original, &options(&original, true, &sequences)).unwrap();
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.gguf");
        save(&adapted, &path, FileType::F32).unwrap();
        let (before, after) = (
            logits(&mut adapted, &original),
            logits(&mut load(&path), &original),
        );
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() <= 2e-5 * a.abs().max(1.0), "{a} and {b}");
        }
    }
}

#[test]
fn an_adapter_alone_has_the_factors_of_its_file() {
    let original = case("llama_gqa_tied");
    let model = Model::load(
        &cpu(1),
        &original,
        &options(&original, true, &documents(&original)),
    );
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("adapter.gguf");
    let model = model.unwrap();
    let more = [("general.name".to_owned(), Value::Text("a".into()))];
    let summary = model
        .save_gguf_adapter(&path, FileType::F32, &more)
        .unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let text = |key: &str| {
        gguf.metadata
            .get(key)
            .unwrap()
            .as_text()
            .unwrap()
            .to_owned()
    };
    assert_eq!(text("general.type"), "adapter");
    assert_eq!(text("adapter.type"), "lora");
    assert_eq!(text("general.architecture"), "llama");
    let settings = std::fs::read(original.join("adapter/adapter_config.json")).unwrap();
    let settings: Json = serde_json::from_slice(&settings).unwrap();
    let alpha = gguf.metadata.get("adapter.lora.alpha").unwrap().as_float();
    assert_eq!(alpha, settings["lora_alpha"].as_f64());
    let own = Tensors::open(&original.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(summary.tensors["F32"], own.names().count());
    let factor = |module: &str, letter: &str| {
        let name = format!("base_model.model.model.layers.1.{module}.lora_{letter}.weight");
        own.read_f32(&name).unwrap()
    };
    let written = |name: &str| gguf.tensors.read_f32(&format!("blk.1.{name}")).unwrap();
    assert_eq!(
        written("attn_q.weight.lora_a"),
        factor("self_attn.q_proj", "A")
    );
    assert_eq!(
        written("attn_v.weight.lora_b"),
        factor("self_attn.v_proj", "B")
    );
    // The rows of the second factor of queries are in pairs.
    let (rank, head) = (settings["r"].as_u64().unwrap() as usize, 16);
    let (plain, paired) = (
        factor("self_attn.q_proj", "B"),
        written("attn_q.weight.lora_b"),
    );
    assert_eq!(paired[..rank], plain[..rank]);
    assert_eq!(
        paired[rank..2 * rank],
        plain[head / 2 * rank..(head / 2 + 1) * rank]
    );
    assert_eq!(paired[2 * rank..3 * rank], plain[rank..2 * rank]);
}

#[test]
fn adapters_that_llama_cpp_cannot_hold_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("adapter.gguf");
    let refused = |name: &str, config: LoraConfig| {
        let training = Training::Lora(config);
        let model = TrainableModel::load(&cpu(1), &case(name), &training, &LoadOptions::new(1));
        let model = model.unwrap();
        let error = model
            .save_gguf_adapter(&path, FileType::F32, &[])
            .unwrap_err();
        assert!(!path.exists());
        error.to_string()
    };
    let plain = LoraConfig::default;
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let dora = refused(
        "qwen2_tied",
        LoraConfig {
            dora: true,
            ..plain()
        },
    );
    assert!(dora.contains("magnitudes of DoRA"), "{dora}");
    let whole = LoraConfig {
        modules_to_save: list(&["norm"]),
        ..plain()
    };
    let whole = refused("qwen2_tied", whole);
    assert!(whole.contains("trained whole"), "{whole}");
    let bias = LoraConfig {
        bias: tightrope_model::TrainedBiases::All,
        ..plain()
    };
    let bias = refused("qwen2_tied", bias);
    assert!(bias.contains("a trained bias"), "{bias}");
    let ranks = LoraConfig {
        rank_pattern: vec![("v_proj".to_owned(), 2)],
        rslora: true,
        ..plain()
    };
    let ranks = refused("qwen2_tied", ranks);
    assert!(ranks.contains("one alpha"), "{ranks}");
    let head = LoraConfig {
        target_modules: tightrope_model::TargetModules::Named(tightrope_model::ModuleNames::List(
            list(&["embed_tokens"]),
        )),
        ..plain()
    };
    let head = refused("qwen2_tied", head);
    assert!(head.contains("also the head"), "{head}");
    let loftq = LoraConfig {
        init: tightrope_model::InitialFactors::Loftq,
        ..plain()
    };
    let loftq = refused("qwen2_tied", loftq);
    assert!(loftq.contains("has no weights in NF4"), "{loftq}");
    let unknown = refused("hyperclovax", plain());
    assert!(unknown.contains("does not know the family"), "{unknown}");
    let model = load(&case("qwen2_tied"));
    assert!(model.save_gguf_adapter(&path, FileType::F32, &[]).is_err());
}
