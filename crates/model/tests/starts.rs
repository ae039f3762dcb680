//! Adapters that start from the weights, against PEFT's PiSSA and OLoRA.

mod common;

use common::{
    Expected,
    adamw::{Hyperparameters, moments, update},
    batchings, capacity, cpu, documents,
    files::{case, tensors, write_tensors},
    step,
};
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_model::{
    Adapters, BaseStorage, InitialFactors, LoadOptions, LoraConfig, Model, TargetModules,
    TrainableModel, Training,
};
use tightrope_packing::Batch;
use tightrope_testkit::relative_distance;

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

/// The cases, with the model and the settings that the script has.
fn cases() -> [(&'static str, PathBuf, LoraConfig); 3] {
    let pissa = LoraConfig {
        r: 3,
        alpha: 8.0,
        init: InitialFactors::Pissa,
        ..LoraConfig::default()
    };
    let rslora = LoraConfig {
        r: 4,
        alpha: 6.0,
        rslora: true,
        target_modules: TargetModules::list(["q_proj", "down_proj", "gate_proj"]),
        ..pissa.clone()
    };
    let olora = LoraConfig {
        alpha: 5.0,
        init: InitialFactors::Olora,
        rank_pattern: vec![("up_proj".into(), 5)],
        target_modules: TargetModules::list(["q_proj", "k_proj", "down_proj", "up_proj"]),
        ..pissa.clone()
    };
    [
        ("pissa", case("llama_linear"), pissa),
        ("pissa_rslora", case("granite"), rslora),
        ("olora", case("qwen2_windows"), olora),
    ]
}

fn load(base: &Path, lora: &LoraConfig) -> TrainableModel<Cpu> {
    let options = LoadOptions::new(capacity(&documents(base)));
    let training = Training::Lora(lora.clone());
    TrainableModel::load(&cpu(2), base, &training, &options).unwrap()
}

fn packed(base: &Path) -> Batch {
    batchings(&documents(base)).remove(0).1.remove(0)
}

fn plain(base: &Path, adapter: Option<&Path>, tokens: usize) -> Model<Cpu> {
    let options = LoadOptions {
        adapter: adapter.map(Path::to_owned),
        ..LoadOptions::new(tokens)
    };
    Model::load(&cpu(1), base, &options).unwrap()
}

fn close(what: &str, got: &[f32], expected: &[f64], bound: f64) {
    let distance = relative_distance(got, expected);
    // This form fails if the distance is NaN.
    let close = distance <= bound;
    assert!(close, "{what}: {distance:e}");
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

#[test]
fn training_goes_as_in_peft_and_what_is_saved_belongs_to_the_models_own_weights() {
    for (name, base, lora) in cases() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/starts")
            .join(name);
        let text = std::fs::read_to_string(folder.join("trajectory.json")).unwrap();
        let steps: Vec<Step> = serde_json::from_str(&text).unwrap();
        let batch = packed(&base);
        let mut model = load(&base, &lora);
        let logits = plain(&base, None, batch.len()).logits(&batch).unwrap();
        close(name, &model.logits(&batch).unwrap(), &wide(&logits), 1e-5);
        // The reference of DPO: at the start nothing differs in a bit.
        let off = model.evaluate_with(&batch, Adapters::Off).unwrap();
        assert_eq!(off, model.evaluate(&batch).unwrap());

        let hyperparameters = Hyperparameters {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: 1.0,
            label_tokens: 0,
        };
        let mut moments = moments(&mut model);
        for (index, expected) in (1..).zip(steps) {
            let (loss, _) = step(&mut model, &[packed(&base)]);
            let norm = update(&mut model, &hyperparameters, &mut moments, index);
            let right = (loss / expected.loss - 1.0).abs() <= 1e-5
                && (norm / expected.grad_norm - 1.0).abs() <= 1e-3;
            assert!(right, "{name}, step {index}: {loss}, {norm}");
        }
        let after = Expected::open(&folder.join("expected.safetensors")).get("logits_after");
        let trained = model.logits(&batch).unwrap();
        close(name, &trained, &after, 1e-3);
        assert_eq!(off, model.evaluate_with(&batch, Adapters::Off).unwrap());

        // The saved adapter is a plain one for the model as it was.
        let folder = TempDir::new().unwrap();
        model.save_adapter(folder.path()).unwrap();
        let text = std::fs::read(folder.path().join("adapter_config.json")).unwrap();
        let settings: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(settings["init_lora_weights"], true);
        assert_eq!(settings["r"], 2 * lora.r);
        if name == "olora" {
            assert_eq!(settings["rank_pattern"], json!({"up_proj": 10}));
            assert_eq!(settings["lora_alpha"], 10);
        }
        let mut loaded = plain(&base, Some(folder.path()), batch.len());
        close(name, &loaded.logits(&batch).unwrap(), &wide(&trained), 2e-5);

        // A run that goes on has the same bits, and so has a model that is merged at once.
        let mut again = load(&base, &lora);
        again.read_adapter(folder.path()).unwrap();
        assert_eq!(again.logits(&batch).unwrap(), trained);
        let merged = TempDir::new().unwrap();
        model.save_merged(merged.path()).unwrap();
        let logits = plain(merged.path(), None, batch.len()).logits(&batch);
        close(name, &logits.unwrap(), &wide(&trained), 2e-5);
    }
}

#[test]
fn weights_of_two_bytes_lose_the_part_and_keep_their_type() {
    let of = f32::from_le_bytes;
    keeps_its_type("BF16", 2e-2, |word| bf16::from_f32(of(word)).to_le_bytes());
    keeps_its_type("F16", 3e-3, |word| f16::from_f32(of(word)).to_le_bytes());
}

fn keeps_its_type(dtype: &str, bound: f64, to: impl Fn([u8; 4]) -> [u8; 2]) {
    let (name, base, lora) = cases()[0].clone();
    let lora = LoraConfig {
        modules_to_save: vec!["norm".into(), "embed_tokens".into()],
        ..lora
    };
    let folder = TempDir::new().unwrap();
    for file in ["config.json", "documents.jsonl"] {
        std::fs::copy(base.join(file), folder.path().join(file)).unwrap();
    }
    let mut all = tensors(&base.join("model.safetensors"));
    for (_, description, bytes) in &mut all {
        description["dtype"] = dtype.into();
        let words = bytes.as_chunks::<4>().0.iter();
        *bytes = words.flat_map(|word| to(*word)).collect();
    }
    write_tensors(&folder.path().join("model.safetensors"), &all);
    let base = folder.path();
    let batch = packed(base);
    let original = wide(&plain(base, None, batch.len()).logits(&batch).unwrap());
    let mut model = load(base, &lora);
    let start = model.logits(&batch).unwrap();
    close(name, &start, &original, bound);
    for parameter in model.parameters() {
        let mut values = parameter.weight.to_f32_vec().unwrap();
        values.iter_mut().for_each(|value| *value *= 1.03);
        parameter.weight.write(&values).unwrap();
    }
    let trained = model.logits(&batch).unwrap();
    assert_ne!(trained, start);
    let adapter = TempDir::new().unwrap();
    model.save_adapter(adapter.path()).unwrap();
    let mut loaded = plain(base, Some(adapter.path()), batch.len());
    close(
        name,
        &loaded.logits(&batch).unwrap(),
        &wide(&trained),
        bound,
    );
    let mut again = load(base, &lora);
    again.read_adapter(adapter.path()).unwrap();
    assert_eq!(again.logits(&batch).unwrap(), trained);
}

/// As it is on another kind of processor, where a decomposition has other last bits.
#[test]
fn a_run_goes_on_from_the_values_that_it_started_from() {
    for (name, base, lora) in cases() {
        let batch = packed(&base);
        let original = wide(&plain(&base, None, batch.len()).logits(&batch).unwrap());
        let model = load(&base, &lora);
        let here = TempDir::new().unwrap();
        model.save_adapter(here.path()).unwrap();
        let there = TempDir::new().unwrap();
        let file = "adapter_config.json";
        std::fs::copy(here.path().join(file), there.path().join(file)).unwrap();
        let file = "adapter_model.safetensors";
        let mut all = tensors(&here.path().join(file));
        for (_, _, bytes) in &mut all {
            let words = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|word| f32::from_le_bytes(*word));
            *bytes = words.flat_map(|x| (x * 1.001).to_le_bytes()).collect();
        }
        write_tensors(&there.path().join(file), &all);
        let error = load(&base, &lora).read_adapter(there.path()).unwrap_err();
        assert!(
            error.to_string().contains("started from other values"),
            "{error}"
        );

        let options = LoadOptions {
            started: Some(there.path().to_owned()),
            ..LoadOptions::new(capacity(&documents(&base)))
        };
        let training = Training::Lora(lora.clone());
        let mut on = TrainableModel::load(&cpu(2), &base, &training, &options).unwrap();
        on.read_adapter(there.path()).unwrap();
        close(name, &on.logits(&batch).unwrap(), &original, 1e-5);
        let again = TempDir::new().unwrap();
        on.save_adapter(again.path()).unwrap();
        let [there, again] = [&there, &again].map(|f| Expected::open(&f.path().join(file)));
        let same = there
            .names()
            .iter()
            .all(|name| there.get(name) == again.get(name));
        assert!(same, "{name}");

        // What does not fit is refused where it is read.
        let other = Training::Lora(LoraConfig {
            r: lora.r + 1,
            rank_pattern: Vec::new(),
            ..lora
        });
        let mut other = TrainableModel::load(&cpu(2), &base, &other, &options).unwrap();
        close(name, &other.logits(&batch).unwrap(), &original, 1e-5);
        other.read_adapter(here.path()).unwrap_err();
    }
}

#[test]
fn what_cannot_start_from_the_weights_is_refused() {
    let (_, base, pissa) = cases()[0].clone();
    let error = |lora: LoraConfig, storage| {
        let options = LoadOptions {
            base: storage,
            ..LoadOptions::new(8)
        };
        let lora = Training::Lora(lora);
        let error = TrainableModel::load(&cpu(1), &base, &lora, &options).unwrap_err();
        error.to_string()
    };
    let dora = LoraConfig {
        dora: true,
        ..pissa.clone()
    };
    let text = error(dora, BaseStorage::AsStored);
    assert!(text.starts_with("`lora.init`"), "{text}");
    let text = error(pissa.clone(), BaseStorage::Nf4);
    assert!(text.contains("NF4"), "{text}");
    let large = LoraConfig {
        r: 33,
        ..pissa.clone()
    };
    let text = error(large, BaseStorage::AsStored);
    assert!(text.starts_with("`lora.r`: 33 is more than the"), "{text}");

    // The adapter of another start.
    let mut model = load(&base, &pissa);
    let folder = TempDir::new().unwrap();
    model.save_adapter(folder.path()).unwrap();
    let other = LoraConfig {
        init: InitialFactors::Olora,
        ..pissa
    };
    let error = load(&base, &other).read_adapter(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("started from other values"),
        "{error}"
    );
    model.read_adapter(folder.path()).unwrap();
}
