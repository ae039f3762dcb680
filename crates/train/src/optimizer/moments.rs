//! How the moments of a parameter are kept: a file for each way, and the choice among them.

mod eight_bits;
mod f32;

use crate::config::OptimizerState;
use std::fmt::Debug;
use tightrope_device::{DeviceError, Tensor};
use tightrope_kernels::{KernelError, adamw::Hyperparameters, adamw_8bit::LEAST_ELEMENTS};
use tightrope_model::Backend;

/// The first and the second moment of one parameter.
pub(super) trait Moments<D: Backend>: Debug + Send + Sync {
    /// The way in which they are kept.
    fn state(&self) -> OptimizerState;

    /// One step of AdamW: updates the weight and both moments.
    fn update(
        &mut self,
        weight: &mut Tensor<D>,
        gradient: &Tensor<D>,
        hyperparameters: Hyperparameters,
    ) -> Result<(), KernelError>;

    /// Everything that is kept. In files the names stand behind the parameter's.
    fn tensors(&mut self) -> Vec<(&'static str, &mut Tensor<D>)>;
}

/// Moments of zero for a parameter of this shape; in f32 where it is too small for `state`.
pub(super) fn zeros<D: Backend>(
    state: OptimizerState,
    device: &D,
    shape: &[usize],
) -> Result<Box<dyn Moments<D>>, DeviceError> {
    let elements: usize = shape.iter().product();
    Ok(match state {
        OptimizerState::EightBits if elements >= LEAST_ELEMENTS => {
            Box::new(eight_bits::EightBits::zeros(device, shape)?)
        }
        OptimizerState::F32 | OptimizerState::EightBits => {
            Box::new(f32::F32::zeros(device, shape)?)
        }
    })
}
