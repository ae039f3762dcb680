//! AdamW: Adam with decoupled weight decay.

mod cpu;
mod cuda;
mod hyperparameters;
mod kernel;
#[cfg(test)]
mod tests;

pub(crate) use hyperparameters::Factors;
pub use hyperparameters::Hyperparameters;

use crate::{Check, Checked, KernelError, check::at_least};
use tightrope_device::{DType, Device, Tensor};

/// One update of one parameter, as PyTorch has it. With `g = gradient_scale · gradient`:
/// `m = β₁m + (1−β₁)g`, `v = β₂v + (1−β₂)g²`,
/// `w = w·(1 − η·λ) − η · (m / (1−β₁ᵗ)) / (√(v / (1−β₂ᵗ)) + eps)`.
#[derive(Debug)]
pub struct Update<'a, D: Device> {
    /// Updated in place, f32 `[elements]`.
    pub weight: &'a mut Tensor<D>,
    /// f32 `[elements]`.
    pub gradient: &'a Tensor<D>,
    /// First moment, updated in place, f32 `[elements]`.
    pub m: &'a mut Tensor<D>,
    /// Second moment, updated in place, f32 `[elements]`.
    pub v: &'a mut Tensor<D>,
    /// The numbers.
    pub hyperparameters: Hyperparameters,
}

/// AdamW (Loshchilov and Hutter, 2019). In f32, with the same bits on every device.
pub trait AdamW: Device {
    /// Updates `weight`, `m` and `v`.
    fn adamw_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Update<'_, D> {
    fn check(&self) -> Result<(), KernelError> {
        self.hyperparameters.check()?;
        let elements = [self.weight.len()];
        at_least("weight", self.weight, DType::F32, &elements)?;
        at_least("gradient", self.gradient, DType::F32, &elements)?;
        at_least("m", self.m, DType::F32, &elements)?;
        at_least("v", self.v, DType::F32, &elements)
    }
}
