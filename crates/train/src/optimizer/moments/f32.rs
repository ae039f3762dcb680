//! Moments in f32, 8 bytes for each element of the parameter.

use super::Moments;
use crate::config::OptimizerState;
use tightrope_device::{DType, DeviceError, Tensor};
use tightrope_kernels::{
    Check, KernelError,
    adamw::{Hyperparameters, Update},
};
use tightrope_model::Backend;

/// Both of the parameter's shape.
#[derive(Debug)]
pub(super) struct F32<D: Backend> {
    m: Tensor<D>,
    v: Tensor<D>,
}

impl<D: Backend> F32<D> {
    pub fn zeros(device: &D, shape: &[usize]) -> Result<Self, DeviceError> {
        let zeros = || Tensor::zeros(device, DType::F32, shape);
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
        weight: &mut Tensor<D>,
        gradient: &Tensor<D>,
        hyperparameters: Hyperparameters,
    ) -> Result<(), KernelError> {
        let device = weight.device().clone();
        let update = Update {
            weight,
            gradient,
            m: &mut self.m,
            v: &mut self.v,
            hyperparameters,
        };
        device.adamw_update(update.checked()?)
    }

    fn tensors(&mut self) -> Vec<(&'static str, &mut Tensor<D>)> {
        vec![("m", &mut self.m), ("v", &mut self.v)]
    }
}
