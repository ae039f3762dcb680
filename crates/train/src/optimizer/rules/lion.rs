//! Lion, with a momentum in f32 or bf16.

use super::{Extent, Joined, Part, Rule, Step};
use crate::config::{LionSettings, OptimizerState};
use tightrope_device::{DType, DeviceError, Tensor, View};
use tightrope_kernels::{
    Check, KernelError,
    lion::{Hyperparameters, Update},
};
use tightrope_model::Backend;

#[derive(Debug)]
pub(super) struct Lion<D: Backend> {
    settings: LionSettings,
    /// `[elements]`.
    m: Tensor<D>,
}

impl<D: Backend> Lion<D> {
    pub(super) fn new(
        settings: &LionSettings,
        state: OptimizerState,
        weights: View<'_, D>,
    ) -> Result<Self, DeviceError> {
        let dtype = match state {
            OptimizerState::Bf16 => DType::BF16,
            OptimizerState::F32 | OptimizerState::EightBits => DType::F32,
        };
        Ok(Self {
            settings: *settings,
            m: Tensor::zeros(weights.device(), dtype, &[weights.len()])?,
        })
    }
}

impl<D: Backend> Rule<D> for Lion<D> {
    fn update(&mut self, group: Joined<'_, D>, step: &Step) -> Result<(), KernelError> {
        let device = group.gradients.device();
        let update = Update {
            weight: group.weights,
            gradient: group.gradients.into_view(),
            m: self.m.view_mut(),
            hyperparameters: Hyperparameters {
                learning_rate: step.learning_rate,
                beta1: self.settings.beta1,
                beta2: self.settings.beta2,
                weight_decay: step.weight_decay,
                step: step.number,
                gradient_scale: step.gradient_scale,
            },
        };
        device.lion_update(update.checked()?)
    }

    fn parts(&mut self) -> Result<Vec<Part<'_, D>>, DeviceError> {
        Ok(vec![Part {
            name: "m",
            of: Extent::Blocks(1),
            numbers: self.m.view_mut(),
        }])
    }
}
