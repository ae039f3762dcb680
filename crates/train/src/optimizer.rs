//! AdamW over the parameters of a model.

use crate::{
    TrainError,
    checkpoint::{read_tensors, write_tensors},
    config::OptimizerSection,
};
use std::path::Path;
use tightrope_device::{DType, Tensor};
use tightrope_kernels::{Check, adamw, sum_of_squares};
use tightrope_model::{Backend, Model, ParameterKind};

const FILE: &str = "optimizer.safetensors";

/// First and second moments of every trained parameter, and how each kind is treated: matrices and
/// embeddings decay, norms and biases do not; the B matrices of adapters learn `lora_plus_ratio`
/// times as fast.
#[derive(Debug)]
pub struct Optimizer<D: Backend> {
    settings: OptimizerSection,
    lora_plus_ratio: f64,
    moments: Vec<Moments<D>>,
}

#[derive(Debug)]
struct Moments<D: Backend> {
    name: String,
    m: Tensor<D>,
    v: Tensor<D>,
}

impl<D: Backend> Optimizer<D> {
    /// Moments of zero for every parameter.
    pub fn new(
        model: &mut Model<D>,
        settings: &OptimizerSection,
        lora_plus_ratio: f64,
    ) -> Result<Self, TrainError> {
        let device = model.device().clone();
        let mut moments = Vec::new();
        for parameter in model.parameters() {
            let zeros = || Tensor::zeros(&device, DType::F32, parameter.weight.shape());
            moments.push(Moments {
                name: parameter.name.to_owned(),
                m: zeros()?,
                v: zeros()?,
            });
        }
        Ok(Self {
            settings: settings.clone(),
            lora_plus_ratio,
            moments,
        })
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
        let device = model.device().clone();
        let largest = self.settings.max_grad_norm;
        let gradient_scale = if largest > 0.0 && grad_norm > largest {
            largest / grad_norm
        } else {
            1.0
        };
        for (parameter, moments) in model.parameters().into_iter().zip(&mut self.moments) {
            let ratio = match parameter.kind {
                ParameterKind::LoraB => self.lora_plus_ratio,
                _ => 1.0,
            };
            let update = adamw::Update {
                weight: parameter.weight,
                gradient: parameter.gradient,
                m: &mut moments.m,
                v: &mut moments.v,
                hyperparameters: adamw::Hyperparameters {
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
                },
            };
            device.adamw_update(update.checked()?)?;
        }
        Ok(())
    }

    /// Writes the moments into a checkpoint.
    pub(crate) fn write(&self, checkpoint: &Path) -> Result<(), TrainError> {
        let tensors = self.moments.iter().flat_map(|moments| {
            let name = |moment: &str| format!("{}.{moment}", moments.name);
            [(name("m"), &moments.m), (name("v"), &moments.v)]
        });
        write_tensors(&checkpoint.join(FILE), tensors)
    }

    /// Takes the moments from a checkpoint.
    pub(crate) fn read(&mut self, checkpoint: &Path) -> Result<(), TrainError> {
        let tensors = self.moments.iter_mut().flat_map(|moments| {
            let name = |moment: &str| format!("{}.{moment}", moments.name);
            [(name("m"), &mut moments.m), (name("v"), &mut moments.v)]
        });
        read_tensors(&checkpoint.join(FILE), tensors)
    }
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
