//! Lion: sign of an interpolated momentum, with decoupled weight decay.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{
    Check, Checked, KernelError,
    check::{self, Operands},
    moment,
};
use tightrope_device::{DType, Device, View, ViewMut};

/// One update, as in lion-pytorch. With `g = gradient_scale · gradient`: `c = β₁m + (1−β₁)g`,
/// `w = w·(1 − η·λ) − η · sign(c)`, `m = β₂m + (1−β₂)g`; `sign(0) = 0`.
///
/// A moment in bf16 is rounded as in [`crate::adamw::Update`].
#[derive(Debug)]
pub struct Update<'a, D: Device> {
    /// Updated in place, f32 `[elements]`.
    pub weight: ViewMut<'a, D>,
    /// f32 `[elements]`.
    pub gradient: View<'a, D>,
    /// Momentum, updated in place, f32 or bf16 `[elements]`.
    pub m: ViewMut<'a, D>,
    /// Hyperparameters of the update.
    pub hyperparameters: Hyperparameters,
}

/// Everything that an update needs besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Weight β₁ of the momentum in the direction.
    pub beta1: f64,
    /// Decay β₂ of the momentum.
    pub beta2: f64,
    /// Weight decay λ; 0 for norms and biases.
    pub weight_decay: f64,
    /// Number t of the step, counted from 1.
    pub step: u64,
    /// Factor of clipping by global norm: min(1, maximum / norm).
    pub gradient_scale: f64,
}

/// Lion (Chen et al., 2023), computed in f32 with the same bits on every device.
pub trait Lion: Device {
    /// Updates `weight` and `m`.
    fn lion_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Update<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        check::below_one("beta1", self.hyperparameters.beta1)?;
        check::below_one("beta2", self.hyperparameters.beta2)?;
        let elements = [self.weight.len()];
        operands.at_least("weight", self.weight.as_view(), DType::F32, &elements)?;
        operands.at_least("gradient", self.gradient, DType::F32, &elements)?;
        let moment = moment::stored_type("m", self.m.as_view())?;
        operands.at_least("m", self.m.as_view(), moment, &elements)
    }
}

/// Values that do not depend on the element, computed in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
struct Factors {
    gradient: f32,
    keep: f32,
    beta1: f32,
    blend1: f32,
    beta2: f32,
    blend2: f32,
    rate: f32,
}

impl Factors {
    fn new(h: &Hyperparameters) -> Self {
        Self {
            gradient: h.gradient_scale as f32,
            keep: (1.0 - h.learning_rate * h.weight_decay) as f32,
            beta1: h.beta1 as f32,
            blend1: (1.0 - h.beta1) as f32,
            beta2: h.beta2 as f32,
            blend2: (1.0 - h.beta2) as f32,
            rate: h.learning_rate as f32,
        }
    }

    /// Updates one element. Rust fuses operations only where the code says so, and GPUs compute the
    /// same.
    #[inline(always)]
    fn step(&self, gradient: f32, weight: &mut f32, m: &mut f32) {
        let g = self.gradient * gradient;
        let direction = self.blend1.mul_add(g, self.beta1 * *m);
        // Zero and NaN stay what they are.
        let sign = if direction > 0.0 {
            1.0
        } else if direction < 0.0 {
            -1.0
        } else {
            direction
        };
        *weight = (-self.rate).mul_add(sign, *weight * self.keep);
        *m = self.blend2.mul_add(g, self.beta2 * *m);
    }
}
