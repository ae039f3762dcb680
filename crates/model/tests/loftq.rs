//! Adapters that start from what NF4 loses of the weights.

mod common;

use common::{
    Expected, batchings, capacity, cpu, documents,
    files::{case, tensors},
    step,
};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_model::{
    Adapters, BaseStorage, InitialFactors, LoadOptions, LoraConfig, Model, TargetModules,
    TrainableModel, Training, combine_adapters,
};
use tightrope_packing::Batch;
use tightrope_testkit::relative_distance;

const CASES: [&str; 3] = ["llama_linear", "qwen2_bias", "gemma2"];
const RANK: usize = 5;

fn loftq() -> LoraConfig {
    LoraConfig {
        r: RANK,
        alpha: 12.0,
        init: InitialFactors::Loftq,
        ..LoraConfig::default()
    }
}

fn options(base: &Path, storage: BaseStorage) -> LoadOptions {
    LoadOptions {
        base: storage,
        ..LoadOptions::new(capacity(&documents(base)))
    }
}

fn new(base: &Path, lora: &LoraConfig) -> TrainableModel<Cpu> {
    let options = options(base, BaseStorage::Nf4);
    TrainableModel::load(&cpu(2), base, &Training::Lora(lora.clone()), &options).unwrap()
}

fn packed(base: &Path) -> Batch {
    batchings(&documents(base)).remove(0).1.remove(0)
}

/// The model with an adapter, whose weights are stored as the files have them unless the adapter
/// says otherwise.
fn with_adapter(base: &Path, adapter: &Path) -> Model<Cpu> {
    let options = LoadOptions {
        adapter: Some(adapter.to_owned()),
        ..options(base, BaseStorage::AsStored)
    };
    Model::load(&cpu(1), base, &options).unwrap()
}

fn saved(model: &Model<Cpu>) -> TempDir {
    let folder = TempDir::new().unwrap();
    model.save_adapter(folder.path()).unwrap();
    folder
}

/// `[m, n]·[n, p]`.
fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let p = b.len() / n;
    let row = |row: &[f64]| -> Vec<f64> {
        let sum = |j| {
            row.iter()
                .zip(b.iter().skip(j).step_by(p))
                .map(|(x, y)| x * y)
                .sum()
        };
        (0..p).map(sum).collect()
    };
    a.chunks_exact(n).flat_map(row).collect()
}

fn transposed(a: &[f64], columns: usize) -> Vec<f64> {
    let column = |j: usize| a.iter().skip(j).step_by(columns).copied();
    (0..columns).flat_map(column).collect()
}

fn norm(a: &[f64]) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The largest singular value, by powers of `AᵀA`.
fn largest(a: &[f64], columns: usize) -> f64 {
    let mut vector: Vec<f64> = (0..columns).map(|i| 1.0 + 0.1 * i as f64).collect();
    let across = transposed(a, columns);
    for _ in 0..2000 {
        vector = product(&across, &product(a, &vector, columns), a.len() / columns);
        let length = norm(&vector);
        vector.iter_mut().for_each(|x| *x /= length);
    }
    norm(&product(a, &vector, columns))
}

/// By the theorem of Eckart and Young, `s·B·A` is the best approximation of rank r of a matrix if and
/// only if the rest is orthogonal to it on both sides and has no larger singular value.
#[test]
fn the_factors_are_the_best_approximation_of_what_nf4_loses() {
    for name in CASES {
        let base = case(name);
        let model = new(&base, &loftq());
        let adapter = saved(&model);
        let factors = Expected::open(&adapter.path().join("adapter_model.safetensors"));
        let quantized = TempDir::new().unwrap();
        let plain = Model::load(&cpu(1), &base, &options(&base, BaseStorage::Nf4)).unwrap();
        plain.save_merged(quantized.path()).unwrap();
        let [before, after] = [&base, quantized.path()]
            .map(|folder: &Path| Expected::open(&folder.join("model.safetensors")));
        let mut seen = 0;
        for (weight, description, _) in tensors(&base.join("model.safetensors")) {
            let Some(module) = weight.strip_suffix("_proj.weight") else {
                continue;
            };
            seen += 1;
            let inputs = description["shape"][1].as_u64().unwrap() as usize;
            let lost: Vec<f64> = before
                .get(&weight)
                .iter()
                .zip(after.get(&weight))
                .map(|(w, q)| w - q)
                .collect();
            let of = |letter| {
                factors.get(&format!(
                    "base_model.model.{module}_proj.lora_{letter}.weight"
                ))
            };
            let (a, b) = (of("A"), of("B"));
            let scale = 12.0 / RANK as f64;
            let part: Vec<f64> = product(&b, &a, RANK).iter().map(|x| scale * x).collect();
            let rest: Vec<f64> = lost.iter().zip(&part).map(|(x, y)| x - y).collect();
            let outputs = lost.len() / inputs;
            let bound = 1e-6 * norm(&lost);
            let left = norm(&product(&transposed(&b, RANK), &rest, outputs)) / norm(&b);
            let right = norm(&product(&a, &transposed(&rest, inputs), inputs)) / norm(&a);
            assert!(
                left < bound && right < bound,
                "{name}, {weight}: {left:e}, {right:e}"
            );
            // The smallest value of the part is the root of what is over without the others.
            let small = (0..RANK).map(|p| {
                let row = norm(&a[p * inputs..][..inputs]);
                let column: Vec<f64> = b.iter().skip(p).step_by(RANK).copied().collect();
                scale * row * norm(&column)
            });
            let smallest = small.fold(f64::INFINITY, f64::min);
            let largest = largest(&rest, inputs);
            assert!(
                largest <= smallest * (1.0 + 1e-6),
                "{name}, {weight}: {largest} {smallest}"
            );
            assert!(norm(&rest) < 0.97 * norm(&lost), "{name}, {weight}");
        }
        assert!(seen >= 14, "{name}: {seen}");
    }
}

#[test]
fn the_model_starts_closer_to_full_precision_than_nf4_alone() {
    for name in CASES {
        let base = case(name);
        let batch = packed(&base);
        let exact = Model::load(&cpu(1), &base, &options(&base, BaseStorage::AsStored));
        let exact = exact.unwrap().logits(&batch).unwrap();
        let exact: Vec<f64> = exact.iter().map(|&x| x.into()).collect();
        let quantized = Model::load(&cpu(1), &base, &options(&base, BaseStorage::Nf4));
        let quantized = quantized.unwrap().logits(&batch).unwrap();
        let wide = LoraConfig { r: 16, ..loftq() };
        let [narrow, wide] = [loftq(), wide].map(|lora| new(&base, &lora).logits(&batch).unwrap());
        let [quantized, narrow, wide] =
            [quantized, narrow, wide].map(|logits| relative_distance(&logits, &exact));
        assert!(
            wide < narrow && narrow < quantized,
            "{name}: {wide}, {narrow}, {quantized}"
        );
        assert!(wide < 0.7 * quantized, "{name}: {wide}, {quantized}");
    }
}

#[test]
fn the_saved_adapter_brings_its_base_into_nf4() {
    for (name, dora) in [
        ("llama_linear", false),
        ("qwen2_bias", true),
        ("gemma2", false),
    ] {
        let base = case(name);
        let lora = LoraConfig { dora, ..loftq() };
        let mut model = new(&base, &lora);
        let batches = [packed(&base)];
        let off = model.evaluate_with(&batches[0], Adapters::Off).unwrap();
        assert_ne!(off, model.evaluate(&batches[0]).unwrap());
        let (_, gradients) = step(&mut model, &batches);
        // Both factors learn from the first step on.
        let moves = |(_, values): &(String, Vec<f32>)| values.iter().any(|&x| x != 0.0);
        assert!(gradients.iter().all(moves), "{name}");
        for parameter in model.parameters() {
            let mut values = parameter.weight.to_f32_vec().unwrap();
            values.iter_mut().for_each(|value| *value *= 1.05);
            parameter.weight.write(&values).unwrap();
        }
        let trained = model.logits(&batches[0]).unwrap();

        let adapter = saved(&model);
        let text = std::fs::read(adapter.path().join("adapter_config.json")).unwrap();
        let settings: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(settings["init_lora_weights"], true);
        assert_eq!(
            settings["loftq_config"],
            json!({"loftq_bits": 4, "loftq_iter": 1})
        );
        assert_eq!(settings["r"], RANK);
        let mut loaded = with_adapter(&base, adapter.path());
        assert_eq!(loaded.logits(&batches[0]).unwrap(), trained, "{name}");
        let merged = TempDir::new().unwrap();
        loaded.save_merged(merged.path()).unwrap();
        let merged = Model::load(
            &cpu(1),
            merged.path(),
            &options(&base, BaseStorage::AsStored),
        );
        let logits = merged.unwrap().logits(&batches[0]).unwrap();
        let trained_wide: Vec<f64> = trained.iter().map(|&x| x.into()).collect();
        let distance = relative_distance(&logits, &trained_wide);
        assert!(distance < 2e-5, "{name}: {distance:e}");

        // A run that goes on, and one that continues the adapter.
        let mut again = new(&base, &lora);
        again.read_adapter(adapter.path()).unwrap();
        assert_eq!(again.logits(&batches[0]).unwrap(), trained);
        let options = LoadOptions {
            adapter: Some(adapter.path().to_owned()),
            ..options(&base, BaseStorage::AsStored)
        };
        let training = Training::Lora(LoraConfig::default());
        let mut on = TrainableModel::load(&cpu(1), &base, &training, &options).unwrap();
        assert_eq!(on.logits(&batches[0]).unwrap(), trained);

        if !dora {
            let error = combine_adapters(
                &[
                    (adapter.path().to_owned(), 1.0),
                    (adapter.path().to_owned(), 1.0),
                ],
                Default::default(),
                TempDir::new().unwrap().path(),
            );
            let error = error.unwrap_err().to_string();
            assert!(error.contains("`loftq_config`"), "{error}");
        }
    }
}

#[test]
fn a_weight_of_which_nothing_is_lost_keeps_a_random_factor() {
    let base = case("llama_linear");
    let quantized = TempDir::new().unwrap();
    // Scales of NF4 are quantised too, so that only zeros come back as they were.
    std::fs::copy(
        base.join("config.json"),
        quantized.path().join("config.json"),
    )
    .unwrap();
    let mut all = tensors(&base.join("model.safetensors"));
    let zero = "model.layers.0.self_attn.q_proj.weight";
    for (name, _, bytes) in &mut all {
        if name == zero {
            bytes.fill(0);
        }
    }
    common::files::write_tensors(&quantized.path().join("model.safetensors"), &all);
    let load = |init| {
        let lora = Training::Lora(LoraConfig { init, ..loftq() });
        let options = options(&base, BaseStorage::Nf4);
        TrainableModel::load(&cpu(1), quantized.path(), &lora, &options).unwrap()
    };
    let factors = |model: &mut TrainableModel<Cpu>| -> Vec<Vec<f32>> {
        let parameters = model.parameters();
        let of = parameters
            .iter()
            .filter(|p| p.name.contains("layers.0.self_attn.q_proj"));
        of.map(|p| p.weight.to_f32_vec().unwrap()).collect()
    };
    let [with, random] =
        [InitialFactors::Loftq, InitialFactors::Random].map(|init| factors(&mut load(init)));
    assert_eq!(with, random);
    assert!(with[0].iter().all(|&x| x != 0.0) && with[1].iter().all(|&x| x == 0.0));
}

#[test]
fn what_loftq_cannot_start_is_refused() {
    let base = case("llama_linear");
    let error = |lora: LoraConfig, base: &Path| {
        let lora = Training::Lora(lora);
        let options = options(&case("llama_linear"), BaseStorage::AsStored);
        let error = TrainableModel::load(&cpu(1), base, &lora, &options).unwrap_err();
        error.to_string()
    };
    let large = LoraConfig { r: 33, ..loftq() };
    let text = error(large, &base);
    assert!(text.starts_with("`lora.r`: 33 is more than the"), "{text}");
    let text = error(loftq(), &bitsandbytes());
    assert!(text.starts_with("`lora.init`: the files hold"), "{text}");
    // Embedding and head keep their type, so nothing of them is lost.
    let lora = LoraConfig {
        target_modules: TargetModules::list(["embed_tokens", "q_proj"]),
        ..loftq()
    };
    let adapter = saved(&new(&base, &lora));
    let mut loaded = with_adapter(&base, adapter.path());
    let expected = new(&base, &lora).logits(&packed(&base)).unwrap();
    assert_eq!(loaded.logits(&packed(&base)).unwrap(), expected);
}

fn bitsandbytes() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bitsandbytes/double")
}
