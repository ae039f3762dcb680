//! AdamW over the parameters of a model.

mod moments;

use crate::{
    TrainError,
    checkpoint::{read_tensors, write_tensors},
    config::{OptimizerSection, OptimizerState},
};
use moments::Moments;
use serde::Serialize;
use std::{collections::BTreeSet, path::Path};
use tightrope_device::{DType, Tensor};
use tightrope_kernels::{Check, adamw::Hyperparameters, sum_of_squares};
use tightrope_model::{Backend, Model, ParameterKind, ParameterMut};

const FILE: &str = "optimizer.safetensors";

/// First and second moments of every trained parameter, and how each kind is treated: matrices and
/// embeddings decay, norms and biases do not; the B matrices of adapters learn `lora_plus_ratio`
/// times as fast.
#[derive(Debug)]
pub struct Optimizer<D: Backend> {
    settings: OptimizerSection,
    lora_plus_ratio: f64,
    parameters: Vec<Parameter<D>>,
}

/// What is kept for a parameter.
#[derive(Debug)]
struct Parameter<D: Backend> {
    name: String,
    elements: usize,
    moments: Box<dyn Moments<D>>,
}

/// What an optimizer keeps in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StatePlan {
    /// The way.
    pub state: OptimizerState,
    /// Tensors of parameters whose moments are kept so.
    pub tensors: u64,
    /// The numbers in them.
    pub parameters: u64,
    /// Of their moments, scales included.
    pub bytes: u64,
}

impl<D: Backend> Optimizer<D> {
    /// Moments of zero for every parameter.
    pub fn new(
        model: &mut Model<D>,
        settings: &OptimizerSection,
        lora_plus_ratio: f64,
    ) -> Result<Self, TrainError> {
        let device = model.device().clone();
        let mut parameters = Vec::new();
        for parameter in model.parameters() {
            let shape = parameter.weight.shape();
            parameters.push(Parameter {
                name: parameter.name.to_owned(),
                elements: parameter.weight.len(),
                moments: moments::zeros(settings.state, &device, shape)?,
            });
        }
        Ok(Self {
            settings: settings.clone(),
            lora_plus_ratio,
            parameters,
        })
    }

    /// What is kept in which way: most parameters as configured, small ones in f32. The way of most
    /// parameters comes first.
    pub fn plan(&mut self) -> Vec<StatePlan> {
        let mut plans: Vec<StatePlan> = Vec::new();
        for parameter in &mut self.parameters {
            let state = parameter.moments.state();
            let tensors = parameter.moments.tensors();
            let bytes: u64 = tensors.iter().map(|(_, t)| t.bytes() as u64).sum();
            let known = plans.iter().position(|plan| plan.state == state);
            let known = known.unwrap_or_else(|| {
                plans.push(StatePlan {
                    state,
                    tensors: 0,
                    parameters: 0,
                    bytes: 0,
                });
                plans.len() - 1
            });
            plans[known].tensors += 1;
            plans[known].parameters += parameter.elements as u64;
            plans[known].bytes += bytes;
        }
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.parameters));
        plans
    }

    /// One update, `step` counted from 1, after the gradients were scaled down to the largest
    /// global norm; `grad_norm` is the norm before that.
    pub fn update(
        &mut self,
        model: &mut Model<D>,
        step: u64,
        learning_rate: f64,
        grad_norm: f64,
    ) -> Result<(), TrainError> {
        let largest = self.settings.max_grad_norm;
        let gradient_scale = if largest > 0.0 && grad_norm > largest {
            largest / grad_norm
        } else {
            1.0
        };
        let parameters = model.parameters();
        self.check(&parameters)?;
        for (parameter, kept) in parameters.into_iter().zip(&mut self.parameters) {
            let ratio = match parameter.kind {
                ParameterKind::LoraB => self.lora_plus_ratio,
                _ => 1.0,
            };
            let hyperparameters = Hyperparameters {
                learning_rate: learning_rate * ratio,
                beta1: self.settings.beta1,
                beta2: self.settings.beta2,
                eps: self.settings.eps,
                weight_decay: if parameter.decay {
                    self.settings.weight_decay
                } else {
                    0.0
                },
                step,
                gradient_scale,
            };
            let moments = &mut kept.moments;
            moments.update(parameter.weight, parameter.gradient, hyperparameters)?;
        }
        Ok(())
    }

    /// Refuses parameters that are not, name by name, those that moments are kept of.
    fn check(&self, parameters: &[ParameterMut<'_, D>]) -> Result<(), TrainError> {
        let kept = self
            .parameters
            .iter()
            .map(|p| (p.name.as_str(), p.elements));
        let given = parameters.iter().map(|p| (p.name, p.weight.len()));
        if kept.clone().eq(given.clone()) {
            return Ok(());
        }
        let kept: BTreeSet<_> = kept.collect();
        let given: BTreeSet<_> = given.collect();
        let other = kept.symmetric_difference(&given).next();
        Err(TrainError::OtherParameters {
            name: other.map_or("their order", |(name, _)| name).to_owned(),
        })
    }

    /// Writes the moments into a checkpoint.
    pub(crate) fn write(&mut self, checkpoint: &Path) -> Result<(), TrainError> {
        let about = self.about();
        write_tensors(&checkpoint.join(FILE), &about, self.tensors())
    }

    /// Takes the moments from a checkpoint, in which they were kept in the same way.
    pub(crate) fn read(&mut self, checkpoint: &Path) -> Result<(), TrainError> {
        let about = self.about();
        read_tensors(&checkpoint.join(FILE), &about, self.tensors())
    }

    /// Whether every moment is a finite number; of those in 8 bits, every scale. Waits for the device,
    /// once.
    pub(crate) fn is_finite(&mut self, device: &D) -> Result<bool, TrainError> {
        let moments = self.parameters.iter_mut();
        let moments = moments.flat_map(|parameter| parameter.moments.tensors());
        let floats = moments.filter(|(_, tensor)| tensor.dtype() == DType::F32);
        let tensors: Vec<_> = floats.map(|(_, tensor)| &*tensor).collect();
        are_finite(device, &tensors)
    }

    fn about(&self) -> [(&'static str, &'static str); 1] {
        [("optimizer.state", self.settings.state.name())]
    }

    fn tensors(&mut self) -> impl Iterator<Item = (String, &mut Tensor<D>)> {
        self.parameters.iter_mut().flat_map(|parameter| {
            let name = &parameter.name;
            let tensors = parameter.moments.tensors().into_iter();
            tensors.map(move |(moment, tensor)| (format!("{name}.{moment}"), tensor))
        })
    }
}

/// Whether every trained weight is a finite number. Waits for the device, once.
pub(crate) fn weights_are_finite<D: Backend>(model: &mut Model<D>) -> Result<bool, TrainError> {
    let device = model.device().clone();
    let parameters = model.parameters();
    let weights: Vec<_> = parameters.iter().map(|p| &*p.weight).collect();
    are_finite(&device, &weights)
}

fn are_finite<D: Backend>(device: &D, tensors: &[&Tensor<D>]) -> Result<bool, TrainError> {
    let args = sum_of_squares::Sum { tensors };
    Ok(device.sum_of_squares(args.checked()?)?.is_finite())
}

/// `√(Σ g²)` over all gradients; not finite exactly if one of them is not. Waits for the device, once.
pub fn gradient_norm<D: Backend>(model: &mut Model<D>) -> Result<f64, TrainError> {
    let device = model.device().clone();
    let parameters = model.parameters();
    let gradients: Vec<_> = parameters.iter().map(|p| &*p.gradient).collect();
    let args = sum_of_squares::Sum {
        tensors: &gradients,
    };
    Ok(device.sum_of_squares(args.checked()?)?.sqrt())
}
