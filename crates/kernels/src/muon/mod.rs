//! Muon: momentum whose matrices are orthogonalised by a Newton–Schulz iteration.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
mod orthogonalize;
#[cfg(test)]
mod tests;

pub use orthogonalize::{COEFFICIENTS, Orthogonalize, orthogonalize};

use crate::{
    Check, Checked, KernelError,
    check::{self, Operands},
};
use tightrope_device::{DType, Device, ViewMut};

/// The elementwise part of an update, as in `torch.optim.Muon`. With `g = gradient_scale ·
/// gradient`: `m = μm + (1−μ)g`, `gradient = μm + (1−μ)g` with the new `m` (Nesterov) or `m`, and
/// `w = w·(1 − η·λ)`. [`orthogonalize`] then adds the direction to each matrix.
#[derive(Debug)]
pub struct Momentum<'a, D: Device> {
    /// Decayed in place, f32 `[elements]`.
    pub weight: ViewMut<'a, D>,
    /// Overwritten with the direction before it is orthogonalised, f32 `[elements]`.
    pub gradient: ViewMut<'a, D>,
    /// Momentum, updated in place, f32 `[elements]`.
    pub m: ViewMut<'a, D>,
    /// Hyperparameters of the update.
    pub hyperparameters: Hyperparameters,
}

/// Everything that the elementwise part needs besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Learning rate η, before it is adjusted to the shape of a matrix.
    pub learning_rate: f64,
    /// Decay μ of the momentum.
    pub momentum: f64,
    /// Whether the direction looks one step ahead.
    pub nesterov: bool,
    /// Weight decay λ.
    pub weight_decay: f64,
    /// Factor of clipping by global norm: min(1, maximum / norm).
    pub gradient_scale: f64,
}

/// `matrix[i, i] += number`.
#[derive(Debug)]
pub struct AddToDiagonal<'a, D: Device> {
    /// f32 `[rows, rows]`.
    pub matrix: ViewMut<'a, D>,
    /// Number of rows and columns.
    pub rows: usize,
    /// The number.
    pub number: f32,
}

/// Muon (Jordan et al., 2024): the parts that are no matrix products, computed in f32 with the same
/// bits on every device.
pub trait Muon: Device {
    /// Updates `weight` and `m`, and overwrites `gradient`.
    fn muon_momentum(&self, args: Checked<Momentum<'_, Self>>) -> Result<(), KernelError>;
    /// Adds into the diagonal.
    fn muon_add_to_diagonal(
        &self,
        args: Checked<AddToDiagonal<'_, Self>>,
    ) -> Result<(), KernelError>;
}

impl<D: Device> Check for Momentum<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        check::below_one("momentum", self.hyperparameters.momentum)?;
        let elements = [self.weight.len()];
        operands.at_least("weight", self.weight.as_view(), DType::F32, &elements)?;
        operands.at_least("gradient", self.gradient.as_view(), DType::F32, &elements)?;
        operands.at_least("m", self.m.as_view(), DType::F32, &elements)
    }
}

impl<D: Device> Check for AddToDiagonal<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let shape = [self.rows, self.rows];
        operands.at_least("matrix", self.matrix.as_view(), DType::F32, &shape)
    }
}

/// Values that do not depend on the element, computed in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
struct Factors {
    gradient: f32,
    keep: f32,
    blend: f32,
    ahead: f32,
}

impl Factors {
    fn new(h: &Hyperparameters) -> Self {
        let blend = (1.0 - h.momentum) as f32;
        Self {
            gradient: h.gradient_scale as f32,
            keep: (1.0 - h.learning_rate * h.weight_decay) as f32,
            blend,
            ahead: if h.nesterov { blend } else { 0.0 },
        }
    }

    /// Updates one element. Rust fuses operations only where the code says so, and GPUs compute the
    /// same.
    #[inline(always)]
    fn step(&self, weight: &mut f32, gradient: &mut f32, m: &mut f32) {
        let g = self.gradient * *gradient;
        *m = self.blend.mul_add(g - *m, *m);
        *gradient = self.ahead.mul_add(g - *m, *m);
        *weight *= self.keep;
    }
}
