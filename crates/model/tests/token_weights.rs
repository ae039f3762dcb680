//! The gradient of any function of the tokens' losses, computed with their weights.

mod common;

use common::{batchings, cpu, documents, files::case, options, training};
use tightrope_model::{Backend, Loss, ModelError, TokenWeights, TrainableModel};
use tightrope_packing::Batch;
use tightrope_testkit::cuda;

const CASES: [&str; 3] = ["gemma2", "granite", "qwen2_tied"];

fn load<D: Backend>(device: &D, name: &str, lora: bool) -> (TrainableModel<D>, Batch) {
    let case = case(name);
    let sequences = documents(&case);
    let options = options(&case, lora, &sequences);
    let model = TrainableModel::load(device, &case, &training(lora), &options).unwrap();
    let (_, mut batches) = batchings(&sequences).remove(0);
    (model, batches.remove(0))
}

fn gradients<D: Backend>(model: &mut TrainableModel<D>) -> Vec<Vec<f32>> {
    let parameters = model.parameters();
    let gradients = parameters.iter();
    gradients.map(|p| p.gradient.to_vec().unwrap()).collect()
}

/// The objective `½ Σ losses²`, whose weights are the losses.
fn squares(loss: &Loss, weights: &mut [f32]) {
    weights.copy_from_slice(&loss.per_token);
}

fn value(loss: &Loss) -> f64 {
    let losses = loss.per_token.iter();
    losses.map(|&loss| 0.5 * f64::from(loss).powi(2)).sum()
}

fn check_known_and_of_losses<D: Backend>(device: &D) {
    for (name, lora) in CASES
        .into_iter()
        .flat_map(|name| [(name, false), (name, true)])
    {
        let (mut model, batch) = load(device, name, lora);
        let evaluated = model.evaluate(&batch).unwrap();
        model.zero_gradients().unwrap();
        let weights = TokenWeights::OfLosses(&mut squares);
        let loss = model.forward_backward(&batch, weights, 0).unwrap();
        assert_eq!(loss, evaluated, "{name}");
        let of_losses = gradients(&mut model);
        model.zero_gradients().unwrap();
        let weights = TokenWeights::Known(&evaluated.per_token);
        model.forward_backward(&batch, weights, 0).unwrap();
        assert!(of_losses == gradients(&mut model), "{name}");
    }
}

#[test]
fn weights_of_the_losses_are_as_those_that_are_known() {
    check_known_and_of_losses(&cpu(2));
    check_known_and_of_losses(cuda());
}

#[test]
fn the_gradient_is_the_derivative() {
    for (name, lora) in CASES
        .into_iter()
        .flat_map(|name| [(name, false), (name, true)])
    {
        let (mut model, batch) = load(&cpu(2), name, lora);
        model.zero_gradients().unwrap();
        let weights = TokenWeights::OfLosses(&mut squares);
        model.forward_backward(&batch, weights, 0).unwrap();
        let gradients = gradients(&mut model);
        let square = |x: &f32| f64::from(*x).powi(2);
        let norm = gradients.iter().flatten().map(square).sum::<f64>().sqrt();
        // Along the gradient the value grows by its norm.
        let distance = 1e-3;
        let mut values = [0.0; 2];
        for (step, value_at) in [(1.0, 1), (-2.0, 0)] {
            for (parameter, gradient) in model.parameters().into_iter().zip(&gradients) {
                let mut weight = parameter.weight.to_vec::<f32>().unwrap();
                for (w, g) in weight.iter_mut().zip(gradient) {
                    *w += (step * distance * f64::from(*g) / norm) as f32;
                }
                parameter.weight.write(&weight).unwrap();
            }
            values[value_at] = value(&model.evaluate(&batch).unwrap());
        }
        let slope = (values[1] - values[0]) / (2.0 * distance);
        let close = (slope / norm - 1.0).abs() < 5e-3;
        assert!(close, "{name}, LoRA {lora}: {slope} and {norm}");
    }
}

#[test]
fn there_is_a_weight_for_each_token() {
    let (mut model, batch) = load(&cpu(1), CASES[0], true);
    let weights = vec![1.0; batch.len() - 1];
    let error = model.forward_backward(&batch, TokenWeights::Known(&weights), 0);
    assert!(matches!(error, Err(ModelError::Weights { .. })));
}
