//! AdamW: Adam with decoupled weight decay.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod hyperparameters;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

pub(crate) use hyperparameters::Factors;
pub use hyperparameters::Hyperparameters;

use crate::{Check, Checked, KernelError, check::Operands, moment};
use tightrope_device::{DType, Device, View, ViewMut};

/// One update of one parameter, as in PyTorch. With `g = gradient_scale · gradient`: `m = β₁m +
/// (1−β₁)g`, `v = β₂v + (1−β₂)g²`, `w = w·(1 − η·λ) − η · (m / (1−β₁ᵗ)) / (√(v / (1−β₂ᵗ)) + eps)`.
///
/// The weight is updated with the new moments before these are rounded. Moments in bf16 are rounded
/// up or down with the probabilities that make the mean exact, by a hash of step and element: to
/// nearest, a second moment with β₂ = 0.999 would never fall.
#[derive(Debug)]
pub struct Update<'a, D: Device> {
    /// Updated in place, f32 `[elements]`.
    pub weight: ViewMut<'a, D>,
    /// f32 `[elements]`.
    pub gradient: View<'a, D>,
    /// First moment, updated in place, f32 or bf16 `[elements]`.
    pub m: ViewMut<'a, D>,
    /// Second moment, updated in place, of the type of the first, `[elements]`.
    pub v: ViewMut<'a, D>,
    /// Hyperparameters of the update.
    pub hyperparameters: Hyperparameters,
}

/// AdamW (Loshchilov and Hutter, 2019), computed in f32 with the same bits on every device.
pub trait AdamW: Device {
    /// Updates `weight`, `m` and `v`.
    fn adamw_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Update<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        self.hyperparameters.check()?;
        let elements = [self.weight.len()];
        operands.at_least("weight", self.weight.as_view(), DType::F32, &elements)?;
        operands.at_least("gradient", self.gradient, DType::F32, &elements)?;
        let moments = moment::stored_type("m", self.m.as_view())?;
        operands.at_least("m", self.m.as_view(), moments, &elements)?;
        operands.at_least("v", self.v.as_view(), moments, &elements)
    }
}
