//! Schedule-free AdamW: gradients are taken at `y`, between the iterate `z` and its average `x`.

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
};
use tightrope_device::{DType, Device, View, ViewMut};

/// One update, as in `schedulefree.AdamWScheduleFree`. With `g = gradient_scale · gradient` and the
/// weight `c` of this step in the average: `v = β₂v + (1−β₂)g²`, `u = g / (√(v / (1−β₂ᵗ)) + eps) +
/// λy`, `y = y + c(z − y) − η(1 − β₁(1−c))u`, `z = z − ηu`.
///
/// `x`, the average of all `z`, is not stored: `y = β₁x + (1−β₁)z`.
#[derive(Debug)]
pub struct Update<'a, D: Device> {
    /// Weight `y` at which the gradient was taken, updated in place, f32 `[elements]`.
    pub y: ViewMut<'a, D>,
    /// f32 `[elements]`.
    pub gradient: View<'a, D>,
    /// Iterate, updated in place, f32 `[elements]`.
    pub z: ViewMut<'a, D>,
    /// Second moment, updated in place, f32 `[elements]`.
    pub v: ViewMut<'a, D>,
    /// Hyperparameters of the update.
    pub hyperparameters: Hyperparameters,
}

/// Everything that an update needs besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Interpolation β₁ between `z` and `x`; above 0.
    pub beta1: f64,
    /// Decay β₂ of the second moment.
    pub beta2: f64,
    /// Added outside the root.
    pub eps: f64,
    /// Weight decay λ, computed at `y`; 0 for norms and biases.
    pub weight_decay: f64,
    /// Weight c of this step's `z` in the average, in [0, 1].
    pub average: f64,
    /// Number t of the step, counted from 1.
    pub step: u64,
    /// Factor of clipping by global norm: min(1, maximum / norm).
    pub gradient_scale: f64,
}

/// `y = x`, where `x = y + (1 − 1/β₁)(z − y)`.
#[derive(Debug)]
pub struct Average<'a, D: Device> {
    /// `y`, overwritten with `x`, f32 `[elements]`.
    pub y: ViewMut<'a, D>,
    /// f32 `[elements]`.
    pub z: View<'a, D>,
    /// Interpolation β₁ between `z` and `x`; above 0.
    pub beta1: f64,
}

/// Schedule-free AdamW (Defazio et al., 2024), computed in f32 with the same bits on every device.
pub trait ScheduleFree: Device {
    /// Updates `y`, `z` and `v`.
    fn schedule_free_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError>;
    /// Overwrites `y` with the average.
    fn schedule_free_average(&self, args: Checked<Average<'_, Self>>) -> Result<(), KernelError>;
}

/// Checks β₁, by which the average is divided.
fn check_beta1(beta1: f64) -> Result<(), KernelError> {
    check::below_one("beta1", beta1)?;
    match beta1 > 0.0 {
        true => Ok(()),
        false => Err(KernelError::Value {
            operand: "beta1",
            value: beta1,
            rule: "must be above 0",
        }),
    }
}

impl<D: Device> Check for Update<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let h = &self.hyperparameters;
        check_beta1(h.beta1)?;
        check::below_one("beta2", h.beta2)?;
        check::step(h.step)?;
        let elements = [self.y.len()];
        operands.at_least("y", self.y.as_view(), DType::F32, &elements)?;
        operands.at_least("gradient", self.gradient, DType::F32, &elements)?;
        operands.at_least("z", self.z.as_view(), DType::F32, &elements)?;
        operands.at_least("v", self.v.as_view(), DType::F32, &elements)
    }
}

impl<D: Device> Check for Average<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        check_beta1(self.beta1)?;
        let elements = [self.y.len()];
        operands.at_least("y", self.y.as_view(), DType::F32, &elements)?;
        operands.at_least("z", self.z, DType::F32, &elements)
    }
}

/// Values that do not depend on the element, computed in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
struct Factors {
    gradient: f32,
    beta2: f32,
    blend2: f32,
    root: f32,
    eps: f32,
    decay: f32,
    average: f32,
    y_rate: f32,
    z_rate: f32,
}

impl Factors {
    fn new(h: &Hyperparameters) -> Self {
        let correction2 = 1.0 - h.beta2.powf(h.step as f64);
        Self {
            gradient: h.gradient_scale as f32,
            beta2: h.beta2 as f32,
            blend2: (1.0 - h.beta2) as f32,
            root: (1.0 / correction2.sqrt()) as f32,
            eps: h.eps as f32,
            decay: h.weight_decay as f32,
            average: h.average as f32,
            y_rate: (h.learning_rate * (h.beta1 * (1.0 - h.average) - 1.0)) as f32,
            z_rate: h.learning_rate as f32,
        }
    }

    /// Updates one element. Rust fuses operations only where the code says so, and GPUs compute the
    /// same.
    #[inline(always)]
    fn step(&self, gradient: f32, y: &mut f32, z: &mut f32, v: &mut f32) {
        let g = self.gradient * gradient;
        *v = (self.blend2 * g).mul_add(g, self.beta2 * *v);
        let denominator = v.sqrt().mul_add(self.root, self.eps);
        let change = self.decay.mul_add(*y, g / denominator);
        *y = self.average.mul_add(*z - *y, *y);
        *y = self.y_rate.mul_add(change, *y);
        *z = (-self.z_rate).mul_add(change, *z);
    }
}

/// Weight of `z − y` in the average.
fn average_weight(beta1: f64) -> f32 {
    (1.0 - 1.0 / beta1) as f32
}
