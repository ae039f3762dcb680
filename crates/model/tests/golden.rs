//! Tiny models of every family against logits, losses, gradients and training trajectories that
//! Transformers, PEFT and PyTorch computed in f64, in every way to batch the same documents.

mod common;

use common::{Expected, batchings, cases, cpu, documents, options, step};
use serde::Deserialize;
use std::path::Path;
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    adamw::{AdamW, Update},
    sum_of_squares::{Sum, SumOfSquares},
};
use tightrope_model::Model;
use tightrope_packing::Batch;
use tightrope_testkit::relative_distance;

/// Of losses, as the cases promise for f32.
const LOSS: f64 = 1e-5;
/// Of each gradient, ‖x − ref‖ / ‖ref‖.
const GRADIENT: f64 = 1e-4;
/// Of all logits, likewise.
const LOGITS: f64 = 1e-5;

fn at_most(what: &str, value: f64, bound: f64) {
    // Written so that a NaN fails.
    let close = value <= bound;
    assert!(close, "{what}: {value:e} > {bound:e}");
}

fn for_each(test: impl Fn(&Path, bool, &str)) {
    for case in cases() {
        for lora in [false, true] {
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            let kind = if lora { "LoRA" } else { "full" };
            test(&case, lora, &format!("{name}, {kind}"));
        }
    }
}

fn expected(case: &Path, lora: bool) -> Expected {
    let file = if lora {
        "expected_lora.safetensors"
    } else {
        "expected.safetensors"
    };
    Expected::open(&case.join(file))
}

#[test]
fn logits() {
    for_each(|case, lora, name| {
        let sequences = documents(case);
        let mut model = Model::load(&cpu(1), case, &options(case, lora, &sequences)).unwrap();
        let (_, batches) = batchings(&sequences).remove(0);
        let logits = model.logits(&batches[0]).unwrap();
        let reference = expected(case, lora).get("logits");
        at_most(name, relative_distance(&logits, &reference), LOGITS);
    });
}

#[test]
fn loss_and_gradients_in_every_batching() {
    for_each(|case, lora, name| {
        let sequences = documents(case);
        let reference = expected(case, lora);
        let mut model = Model::load(&cpu(2), case, &options(case, lora, &sequences)).unwrap();
        for (way, batches) in batchings(&sequences) {
            let (loss, gradients) = step(&mut model, &batches);
            let loss_reference = reference.get("loss")[0];
            let name = format!("{name}, {way}");
            at_most(&name, (loss / loss_reference - 1.0).abs(), LOSS);
            let names = reference.names();
            let expected = names.iter().filter(|name| name.starts_with("grad."));
            assert_eq!(gradients.len(), expected.count(), "{name}");
            for (parameter, gradient) in gradients {
                let reference = reference.get(&format!("grad.{parameter}"));
                let distance = relative_distance(&gradient, &reference);
                at_most(&format!("{name}: {parameter}"), distance, GRADIENT);
            }
        }
    });
}

#[derive(Deserialize)]
struct Trajectory {
    hyperparameters: Hyperparameters,
    full: Vec<Step>,
    lora: Vec<Step>,
}

#[derive(Deserialize)]
struct Hyperparameters {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    label_tokens: usize,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

/// First and second moments of each parameter.
type Moments = Vec<(Tensor<Cpu>, Tensor<Cpu>)>;

fn moments(model: &mut Model<Cpu>) -> Moments {
    let device = model.device().clone();
    let zeros = |shape: &[usize]| Tensor::zeros(&device, DType::F32, shape).unwrap();
    let parameters = model.parameters();
    let both = parameters
        .iter()
        .map(|p| (zeros(p.weight.shape()), zeros(p.weight.shape())));
    both.collect()
}

/// Updates all parameters and returns the norm of their gradients before clipping.
fn update(model: &mut Model<Cpu>, h: &Hyperparameters, moments: &mut Moments, step: u64) -> f64 {
    let device = model.device().clone();
    let mut parameters = model.parameters();
    let squares = parameters.iter().map(|p| {
        device
            .sum_of_squares(Sum { x: p.gradient }.checked().unwrap())
            .unwrap()
    });
    let norm = squares.sum::<f64>().sqrt();
    for (parameter, (m, v)) in parameters.iter_mut().zip(moments) {
        let update = Update {
            weight: parameter.weight,
            gradient: parameter.gradient,
            m,
            v,
            learning_rate: h.learning_rate,
            beta1: h.beta1,
            beta2: h.beta2,
            eps: h.eps,
            weight_decay: if parameter.decay { h.weight_decay } else { 0.0 },
            step,
            gradient_scale: (h.max_grad_norm / (norm + 1e-6)).min(1.0),
        };
        device.adamw_update(update.checked().unwrap()).unwrap();
    }
    norm
}

#[test]
fn ten_steps_of_training() {
    for_each(|case, lora, name| {
        let text = std::fs::read_to_string(case.join("trajectory.json")).unwrap();
        let trajectory: Trajectory = serde_json::from_str(&text).unwrap();
        let h = trajectory.hyperparameters;
        let sequences = documents(case);
        let mut model = Model::load(&cpu(2), case, &options(case, lora, &sequences)).unwrap();
        let (_, batches) = batchings(&sequences).remove(0);
        let trained: usize = batches.iter().map(Batch::trained_tokens).sum();
        assert_eq!(trained, h.label_tokens, "{name}");
        let mut moments = moments(&mut model);
        let steps = if lora {
            trajectory.lora
        } else {
            trajectory.full
        };
        assert_eq!(steps.len(), 10);
        for (step_index, expected) in (1..).zip(steps) {
            let (loss, _) = step(&mut model, &batches);
            let norm = update(&mut model, &h, &mut moments, step_index);
            let name = format!("{name}, step {step_index}");
            at_most(
                &format!("{name}: loss"),
                (loss / expected.loss - 1.0).abs(),
                LOSS,
            );
            let distance = (norm / expected.grad_norm - 1.0).abs();
            at_most(&format!("{name}: norm"), distance, GRADIENT);
        }
    });
}
