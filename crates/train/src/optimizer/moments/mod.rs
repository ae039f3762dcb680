//! How moments are kept: a file for each way, and the choice among them.

mod eight_bits;
mod f32;

use crate::config::OptimizerState;
use std::fmt::Debug;
use tightrope_device::{DeviceError, View, ViewMut};
use tightrope_kernels::{KernelError, adamw::Hyperparameters, adamw_8bit::LEAST_ELEMENTS};
use tightrope_model::Backend;

/// The first and the second moment of parameters that lie side by side.
pub(super) trait Moments<D: Backend>: Debug + Send + Sync {
    /// The way in which they are kept.
    fn state(&self) -> OptimizerState;

    /// One step of AdamW: updates all weights and their moments.
    fn update(
        &mut self,
        weight: ViewMut<'_, D>,
        gradient: View<'_, D>,
        hyperparameters: Hyperparameters,
    ) -> Result<(), KernelError>;

    /// Everything that is kept.
    fn parts(&mut self) -> Vec<Part<'_, D>>;
}

/// Numbers that are kept, one for each block of elements.
#[derive(Debug)]
pub(super) struct Part<'a, D: Backend> {
    /// In files it stands behind the parameter's name.
    pub name: &'static str,
    /// `[blocks]`.
    pub numbers: ViewMut<'a, D>,
    /// Elements of a block. Parameters begin at whole blocks: an arena aligns them to that
    /// ([`tightrope_device::ALIGNMENT`]).
    pub block: usize,
}

/// How the moments of a parameter are kept: in f32 where it is too small for `state`.
pub(super) fn state_of(state: OptimizerState, elements: usize) -> OptimizerState {
    match state {
        OptimizerState::EightBits if elements >= LEAST_ELEMENTS => OptimizerState::EightBits,
        OptimizerState::F32 | OptimizerState::EightBits => OptimizerState::F32,
    }
}

/// Moments of zero for so many elements.
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
