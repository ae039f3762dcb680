//! Tiny models of every family against logits, losses, gradients and training trajectories that
//! Transformers, PEFT and PyTorch computed in f64, in every way to batch the same documents.

mod common;

use common::{
    Expected,
    adamw::{Hyperparameters, moments, update},
    batchings, cases, cpu, documents, options, step,
};
use serde::Deserialize;
use std::path::Path;
use tightrope_device::DType;
use tightrope_model::{Backend, LoadOptions, TrainableModel};
use tightrope_packing::Batch;
use tightrope_testkit::{cuda, relative_distance};

/// Allowed distances from the reference, and the type of activations.
#[derive(Clone, Copy)]
struct Precision {
    dtype: DType,
    /// Relative tolerance of losses.
    loss: f64,
    /// Tolerance of each gradient, and of their norm: ‖x − ref‖ / ‖ref‖.
    gradient: f64,
    /// Tolerance of all logits, measured in the same way.
    logits: f64,
}

/// Tolerances that the cases promise for f32.
const F32: Precision = Precision {
    dtype: DType::F32,
    loss: 1e-5,
    gradient: 1e-4,
    logits: 1e-5,
};

/// A rounding to bf16 is off by 2⁻⁹ on average, and about 30 independent roundings in a row add up
/// to √30 times as much of a logit. Gradients pass twice as many, and those of keys are differences
/// of larger numbers. See docs/numerics.md.
const BF16: Precision = Precision {
    dtype: DType::BF16,
    loss: 5e-3,
    gradient: 8e-2,
    logits: 3e-2,
};

fn at_most(what: &str, value: f64, bound: f64) {
    // This form fails if the value is NaN.
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

fn load<D: Backend>(
    device: &D,
    precision: Precision,
    case: &Path,
    lora: bool,
) -> TrainableModel<D> {
    let options = LoadOptions {
        precision: precision.dtype,
        ..options(case, lora, &documents(case))
    };
    TrainableModel::load(device, case, &common::training(lora), &options).unwrap()
}

fn check_logits<D: Backend>(device: &D, precision: Precision) {
    for_each(|case, lora, name| {
        let mut model = load(device, precision, case, lora);
        let (_, batches) = batchings(&documents(case)).remove(0);
        let logits = model.logits(&batches[0]).unwrap();
        let reference = expected(case, lora).get("logits");
        let distance = relative_distance(&logits, &reference);
        at_most(name, distance, precision.logits);
    });
}

fn check_gradients<D: Backend>(device: &D, precision: Precision, ways: usize) {
    for_each(|case, lora, name| {
        let reference = expected(case, lora);
        let mut model = load(device, precision, case, lora);
        for (way, batches) in batchings(&documents(case)).into_iter().take(ways) {
            let (loss, gradients) = step(&mut model, &batches);
            let loss_reference = reference.get("loss")[0];
            let name = format!("{name}, {way}");
            at_most(&name, (loss / loss_reference - 1.0).abs(), precision.loss);
            let names = reference.names();
            let expected = names.iter().filter(|name| name.starts_with("grad."));
            assert_eq!(gradients.len(), expected.count(), "{name}");
            for (parameter, gradient) in gradients {
                let reference = reference.get(&format!("grad.{parameter}"));
                let distance = relative_distance(&gradient, &reference);
                let name = format!("{name}: {parameter}");
                at_most(&name, distance, precision.gradient);
            }
        }
    });
}

#[test]
fn logits() {
    check_logits(&cpu(1), F32);
    check_logits(&cpu(1), BF16);
}

#[test]
fn logits_on_cuda() {
    check_logits(cuda(), F32);
    check_logits(cuda(), BF16);
}

#[test]
fn loss_and_gradients_on_cuda() {
    check_gradients(cuda(), F32, 2);
    check_gradients(cuda(), BF16, 1);
}

#[test]
fn loss_and_gradients_in_every_batching() {
    check_gradients(&cpu(2), F32, usize::MAX);
    check_gradients(&cpu(2), BF16, 2);
}

#[derive(Deserialize)]
struct Trajectory {
    hyperparameters: Hyperparameters,
    full: Vec<Step>,
    lora: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

fn check_training<D: Backend>(device: &D, precision: Precision) {
    for_each(|case, lora, name| {
        let text = std::fs::read_to_string(case.join("trajectory.json")).unwrap();
        let trajectory: Trajectory = serde_json::from_str(&text).unwrap();
        let h = trajectory.hyperparameters;
        let sequences = documents(case);
        let mut model = load(device, precision, case, lora);
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
                precision.loss,
            );
            let distance = (norm / expected.grad_norm - 1.0).abs();
            at_most(&format!("{name}: norm"), distance, precision.gradient);
        }
    });
}

#[test]
fn ten_steps_of_training() {
    check_training(&cpu(2), F32);
    check_training(&cpu(2), BF16);
}

#[test]
fn ten_steps_of_training_on_cuda() {
    check_training(cuda(), F32);
    check_training(cuda(), BF16);
}
