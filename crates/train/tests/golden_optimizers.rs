//! Optimizers and schedules beside published implementations: golden/optimizers.py made the values.

mod common;

use common::Run;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};
use tightrope_formats::Tensors;
use tightrope_model::{Backend, ModelConfig, TrainableModel};
use tightrope_testkit::cuda;
use tightrope_train::{Config, Optimizer, Schedule, gradient_norm};

const STEPS: u64 = 12;

/// A configuration with these settings.
fn config(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse("model = \"tiny/random\"", Path::new("tiny.toml"), &sets).unwrap()
}

fn architecture() -> ModelConfig {
    let settings = json!({
        "model_type": "llama",
        "vocab_size": 7,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": false,
    });
    ModelConfig::from_json(&settings).unwrap()
}

/// Values of parameter `index` in the order of names.
fn weight(index: f64, i: f64) -> f32 {
    (0.5 * (0.37 * i + index).sin()) as f32
}

fn gradient(index: usize, i: f64, step: u64) -> f32 {
    let size = if step.is_multiple_of(3) { 0.02 } else { 1.0 };
    let scale = size * 10f64.powi(-((index % 3) as i32));
    let angle = 0.61 * i + 1.7 * index as f64 + 0.9 * step as f64;
    (scale * angle.cos()) as f32
}

fn write<D: Backend>(
    model: &mut TrainableModel<D>,
    to: impl Fn(usize, f64) -> f32,
    gradients: bool,
) {
    let mut parameters = model.parameters();
    parameters.sort_by(|a, b| a.name.cmp(b.name));
    for (index, parameter) in parameters.into_iter().enumerate() {
        let len = parameter.weight.len();
        let values: Vec<f32> = (0..len).map(|i| to(index, i as f64)).collect();
        let tensor = match gradients {
            true => parameter.gradient,
            false => parameter.weight,
        };
        tensor.write(&values).unwrap();
    }
}

/// Weights after the last step, by name.
fn trajectory<D: Backend>(device: &D, sets: &[&str]) -> BTreeMap<String, Vec<f32>> {
    let usual = [
        "optimizer.learning_rate=1e-2",
        "optimizer.weight_decay=0.05",
        "optimizer.max_grad_norm=1",
        "schedule.warmup_steps=3",
    ];
    let config = config(&[&usual[..], sets].concat());
    let mut run = Run::new(&[]);
    run.architecture = architecture();
    let mut model = run.model(device, &config, 8);
    write(&mut model, |index, i| weight(index as f64, i), false);
    let mut optimizer = Optimizer::new(&mut model, &config.optimizer, 1.0).unwrap();
    let highest = config.optimizer.learning_rate;
    let schedule = Schedule::new(&config.schedule, highest, STEPS);
    for step in 1..=STEPS {
        write(&mut model, |index, i| gradient(index, i, step), true);
        let norm = gradient_norm(&mut model).unwrap();
        assert_eq!(norm > 1.0, !step.is_multiple_of(3), "{norm}");
        let rate = schedule.learning_rate(step);
        optimizer.update(&mut model, step, rate, norm).unwrap();
    }
    optimizer.show_averages(&mut model).unwrap();
    let parameters = model.parameters();
    let value = |p: &tightrope_model::ParameterMut<'_, D>| p.weight.to_vec().unwrap();
    parameters
        .iter()
        .map(|p| (p.name.to_owned(), value(p)))
        .collect()
}

const BETAS: &str = "optimizer.beta2=0.95";
const LINEAR: &str = "schedule.kind=linear";

/// Cases of the script, with their settings here.
const CASES: &[(&str, &[&str])] = &[
    (
        "adamw",
        &[
            BETAS,
            LINEAR,
            "optimizer.embedding_learning_rate=2e-3",
            "optimizer.head_learning_rate=5e-3",
        ],
    ),
    ("lion", &["optimizer.kind=lion", LINEAR]),
    (
        "muon-original",
        &[
            "optimizer.kind=muon",
            BETAS,
            LINEAR,
            "optimizer.adjust_lr=original",
            "optimizer.adamw_learning_rate=3e-3",
        ],
    ),
    (
        "muon-match-rms-adamw",
        &[
            "optimizer.kind=muon",
            BETAS,
            LINEAR,
            "optimizer.adamw_learning_rate=3e-3",
        ],
    ),
    ("adafactor", &["optimizer.kind=adafactor", LINEAR]),
    (
        "adafactor-scaled",
        &[
            "optimizer.kind=adafactor",
            LINEAR,
            "optimizer.scale_parameter=true",
            "optimizer.beta1=0.9",
            "optimizer.clip_threshold=0.5",
        ],
    ),
    (
        "schedule-free",
        &["optimizer.kind=schedule-free", BETAS, "optimizer.r=0.5"],
    ),
];

fn check_trajectories<D: Backend>(device: &D) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let golden = Tensors::open(&folder.join("optimizers.safetensors")).unwrap();
    let names: Vec<&str> = golden.names().collect();
    let mut compared = 0;
    for (case, sets) in CASES {
        for (name, got) in trajectory(device, sets) {
            let golden_name = format!("{case}/{name}");
            let bytes = golden.read(&golden_name).unwrap();
            let expected = tightrope_formats::Encoding::F32.to_f32(&bytes).unwrap();
            assert_eq!(got.len(), expected.len());
            let mut moved = 0.0f32;
            let index = names.iter().filter(|n| n.starts_with(&format!("{case}/")));
            let index = index.filter(|n| ***n < *golden_name).count();
            for (i, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
                // Both sides round in f32: twelve steps of about 0.01 that are each off by less
                // than 1e-5 of themselves, and the roundings of weights below 1.
                let error = (got - expected).abs();
                assert!(error <= 3e-6, "{golden_name}[{i}]: {got} {expected}");
                moved = moved.max((expected - weight(index as f64, i as f64)).abs());
            }
            assert!(moved > 1e-3, "{golden_name} moved by {moved} only");
            compared += 1;
        }
    }
    assert_eq!(compared, names.len());
}

#[test]
fn trajectories_are_the_published_ones_on_the_cpu() {
    check_trajectories(&Run::new(&[]).cpu());
}

#[test]
fn trajectories_are_the_published_ones_on_cuda() {
    check_trajectories(cuda());
}

#[test]
fn learning_rates_are_those_of_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schedules.json");
    let golden: BTreeMap<String, Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(golden.len(), 3 * 10);
    for (name, factors) in &golden {
        // "kind key=value … warmup_steps=w of s".
        let (settings, steps) = name.split_once(" of ").unwrap();
        let steps: u64 = steps.parse().unwrap();
        let mut words = settings.split(' ');
        let kind = format!("schedule.kind={}", words.next().unwrap());
        let sets = words.map(|set| format!("schedule.{set}"));
        let sets: Vec<String> = [kind].into_iter().chain(sets).collect();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let section = config(&sets).schedule;
        let warmup = section.warmup_steps.unwrap();
        let schedule = Schedule::new(&section, 1.0, steps);
        let factors: Vec<f64> = factors
            .as_array()
            .unwrap()
            .iter()
            .map(|factor| factor.as_f64().unwrap())
            .collect();
        assert_eq!(factors.len() as u64, steps);
        for step in 1..=steps {
            let got = schedule.learning_rate(step);
            assert!(got > 0.0, "{name}: step {step}");
            // The warm-up is one step ahead, so that the first step does something.
            let index = if step <= warmup { step } else { step - 1 };
            let expected = factors[index as usize];
            assert!(
                (got - expected).abs() < 1e-12,
                "{name}, step {step}: {got} {expected}"
            );
        }
    }
}
