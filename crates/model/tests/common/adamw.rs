//! Updates of all parameters of a model, as in PyTorch.

use serde::Deserialize;
use tightrope_device::{DType, Tensor};
use tightrope_kernels::{
    Check,
    adamw::{self, Update},
    sum_of_squares::Sum,
};
use tightrope_model::{Backend, TrainableModel};

#[derive(Deserialize)]
pub(crate) struct Hyperparameters {
    pub(crate) learning_rate: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) eps: f64,
    pub(crate) weight_decay: f64,
    pub(crate) max_grad_norm: f64,
    pub(crate) label_tokens: usize,
}

/// First and second moments of each parameter.
pub(crate) type Moments<D> = Vec<(Tensor<D>, Tensor<D>)>;

pub(crate) fn moments<D: Backend>(model: &mut TrainableModel<D>) -> Moments<D> {
    let device = model.device().clone();
    let zeros = |shape: &[usize]| Tensor::zeros(&device, DType::F32, shape).unwrap();
    let parameters = model.parameters();
    let both = parameters
        .iter()
        .map(|p| (zeros(p.weight.shape()), zeros(p.weight.shape())));
    both.collect()
}

/// Updates all parameters and returns the norm of their gradients before clipping.
pub(crate) fn update<D: Backend>(
    model: &mut TrainableModel<D>,
    h: &Hyperparameters,
    moments: &mut Moments<D>,
    step: u64,
) -> f64 {
    let device = model.device().clone();
    let mut parameters = model.parameters();
    let gradients: Vec<_> = parameters.iter().map(|p| p.gradient.view()).collect();
    let args = Sum {
        tensors: &gradients,
    };
    let squares = device.sum_of_squares(args.checked().unwrap()).unwrap();
    let norm = squares.sqrt();
    for (parameter, (m, v)) in parameters.iter_mut().zip(moments) {
        let update = Update {
            weight: parameter.weight.view_mut(),
            gradient: parameter.gradient.view(),
            m: m.view_mut(),
            v: v.view_mut(),
            hyperparameters: adamw::Hyperparameters {
                learning_rate: h.learning_rate,
                beta1: h.beta1,
                beta2: h.beta2,
                eps: h.eps,
                weight_decay: if parameter.decay { h.weight_decay } else { 0.0 },
                step,
                gradient_scale: (h.max_grad_norm / (norm + 1e-6)).min(1.0),
            },
        };
        device.adamw_update(update.checked().unwrap()).unwrap();
    }
    norm
}
