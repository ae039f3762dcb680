//! Moments in f32, 8 bytes for each element.

use super::{Moments, Part};
use crate::config::OptimizerState;
use tightrope_device::{DType, DeviceError, Tensor, View, ViewMut};
use tightrope_kernels::{
    Check, KernelError,
    adamw::{Hyperparameters, Update},
};
use tightrope_model::Backend;

/// Both `[elements]`.
#[derive(Debug)]
pub(super) struct F32<D: Backend> {
    m: Tensor<D>,
    v: Tensor<D>,
}

impl<D: Backend> F32<D> {
    pub(super) fn zeros(device: &D, elements: usize) -> Result<Self, DeviceError> {
        let zeros = || Tensor::zeros(device, DType::F32, &[elements]);
        Ok(Self {
            m: zeros()?,
            v: zeros()?,
        })
    }
}

impl<D: Backend> Moments<D> for F32<D> {
    fn state(&self) -> OptimizerState {
        OptimizerState::F32
    }

    fn update(
        &mut self,
        weight: ViewMut<'_, D>,
        gradient: View<'_, D>,
        hyperparameters: Hyperparameters,
    ) -> Result<(), KernelError> {
        let device = gradient.device();
        let update = Update {
            weight,
            gradient,
            m: self.m.view_mut(),
            v: self.v.view_mut(),
            hyperparameters,
        };
        device.adamw_update(update.checked()?)
    }

    fn parts(&mut self) -> Vec<Part<'_, D>> {
        let moments = [("m", &mut self.m), ("v", &mut self.v)].into_iter();
        moments
            .map(|(name, moment)| Part {
                name,
                numbers: moment.view_mut(),
                block: 1,
            })
            .collect()
    }
}
