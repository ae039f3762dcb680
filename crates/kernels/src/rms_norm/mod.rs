//! Root-mean-square normalisation, with the residual addition fused.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// The addition before the norm: `sum = x + add`, and `sum` is normalised.
#[derive(Debug)]
pub struct Residual<'a, D: Device> {
    /// `[rows, dim]`.
    pub add: View<'a, D>,
    /// Overwritten, `[rows, dim]`.
    pub sum: ViewMut<'a, D>,
}

/// `y[t,h] = s[t,h] · rstd[t] · (w[h] + plus_one)`, `rstd[t] = (mean_h s[t,h]² + eps)^-½`,
/// `s = x`, or `x + add` with a residual.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// `[rows, dim]`.
    pub x: View<'a, D>,
    /// The residual addition, if it is fused.
    pub residual: Option<Residual<'a, D>>,
    /// f32 `[dim]`.
    pub weight: View<'a, D>,
    /// Gemma stores `w - 1`.
    pub plus_one: bool,
    /// Added inside the root.
    pub eps: f32,
    /// Overwritten, `[rows, dim]`.
    pub y: ViewMut<'a, D>,
    /// Overwritten, f32 `[rows]`; saved for the backward pass.
    pub rstd: ViewMut<'a, D>,
    /// Number of rows: tokens, or tokens × heads for the norm of each head.
    pub rows: usize,
    /// Number of features that are normalised together.
    pub dim: usize,
}

/// With `g = dy · (w + plus_one)` and `n = s · rstd`:
/// `dx = rstd · (g − n · mean_h(g · n))`, `dw[h] = Σ_t dy[t,h] · n[t,h]`.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// `[rows, dim]`.
    pub dy: View<'a, D>,
    /// Input of the norm (`sum`, with a residual), `[rows, dim]`.
    pub x: View<'a, D>,
    /// From the forward pass, f32 `[rows]`.
    pub rstd: View<'a, D>,
    /// f32 `[dim]`.
    pub weight: View<'a, D>,
    /// Value of the forward pass.
    pub plus_one: bool,
    /// `[rows, dim]`.
    pub dx: ViewMut<'a, D>,
    /// Whether `dx` is added into (a residual stream); otherwise it is overwritten.
    pub accumulate: bool,
    /// Added into, f32 `[dim]`; `None` if the weight is frozen.
    pub dweight: Option<ViewMut<'a, D>>,
    /// Number of rows.
    pub rows: usize,
    /// Number of features that are normalised together.
    pub dim: usize,
}

/// Root-mean-square normalisation (Zhang and Sennrich, 2019). Statistics are f32; activations are
/// all f32 or all bf16; a `sum` is normalised as it is stored.
pub trait RmsNorm: Device {
    /// Writes `y`, `rstd` and, with a residual, `sum`.
    fn rms_norm_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Writes or adds into `dx`; adds into `dweight`.
    fn rms_norm_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dims = [self.rows, self.dim];
        let dtype = operands.activation("x", self.x)?;
        operands.at_least("x", self.x, dtype, &dims)?;
        if let Some(residual) = &self.residual {
            operands.at_least("residual.add", residual.add, dtype, &dims)?;
            operands.at_least("residual.sum", residual.sum.as_view(), dtype, &dims)?;
        }
        operands.exact("weight", self.weight, &[self.dim])?;
        operands.at_least("y", self.y.as_view(), dtype, &dims)?;
        operands.at_least("rstd", self.rstd.as_view(), DType::F32, &[self.rows])
    }
}

impl<D: Device> Check for Backward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dims = [self.rows, self.dim];
        let dtype = operands.activation("dy", self.dy)?;
        operands.at_least("dy", self.dy, dtype, &dims)?;
        operands.at_least("x", self.x, dtype, &dims)?;
        operands.at_least("rstd", self.rstd, DType::F32, &[self.rows])?;
        operands.exact("weight", self.weight, &[self.dim])?;
        operands.at_least("dx", self.dx.as_view(), dtype, &dims)?;
        match &self.dweight {
            Some(dweight) => operands.exact("dweight", dweight.as_view(), &[self.dim]),
            None => Ok(()),
        }
    }
}
