//! Storage of moments: a file for each kind, and the choice among them.

mod eight_bits;
mod f32;

use crate::config::OptimizerState;
use std::fmt::Debug;
use tightrope_device::{DeviceError, View, ViewMut};
use tightrope_kernels::{KernelError, adamw::Hyperparameters, adamw_8bit::LEAST_ELEMENTS};
use tightrope_model::Backend;

/// First and second moments of parameters that lie side by side.
pub(super) trait Moments<D: Backend>: Debug + Send + Sync {
    /// Kind of storage.
    fn state(&self) -> OptimizerState;

    /// One step of AdamW: updates all weights and their moments.
    fn update(
        &mut self,
        weight: ViewMut<'_, D>,
        gradient: View<'_, D>,
        hyperparameters: Hyperparameters,
    ) -> Result<(), KernelError>;

    /// All stored values.
    fn parts(&mut self) -> Vec<Part<'_, D>>;
}

/// Stored values, one for each block of elements.
#[derive(Debug)]
pub(super) struct Part<'a, D: Backend> {
    /// Name in files, after the name of the parameter.
    pub name: &'static str,
    /// `[blocks]`.
    pub numbers: ViewMut<'a, D>,
    /// Number of elements in a block. Parameters begin at whole blocks, because an arena aligns
    /// them ([`tightrope_device::ALIGNMENT`]).
    pub block: usize,
}

/// Storage of the moments of a parameter: f32 if the parameter is too small for `state`.
pub(super) fn state_of(state: OptimizerState, elements: usize) -> OptimizerState {
    match state {
        OptimizerState::EightBits if elements >= LEAST_ELEMENTS => OptimizerState::EightBits,
        OptimizerState::F32 | OptimizerState::EightBits => OptimizerState::F32,
    }
}

/// Creates zero moments for this number of elements.
pub(super) fn zeros<D: Backend>(
    state: OptimizerState,
    device: &D,
    elements: usize,
) -> Result<Box<dyn Moments<D>>, DeviceError> {
    Ok(match state {
        OptimizerState::EightBits => Box::new(eight_bits::EightBits::zeros(device, elements)?),
        OptimizerState::F32 => Box::new(f32::F32::zeros(device, elements)?),
    })
}
