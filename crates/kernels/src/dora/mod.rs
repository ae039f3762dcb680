//! Weight-decomposed adapters (DoRA): `y = x·W'ᵀ + bias` with `W'[j] = m[j] · V[j] / ‖V[j]‖` and
//! `V = W + s·B·A`; the norms count as constants in the backward pass.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
mod layer;
#[cfg(test)]
mod tests;

pub use layer::{Adapter, BackwardInput, BackwardWeights, Forward, Norms};

use crate::{Check, Checked, KernelError, check::Operands, product::Start};
use tightrope_device::{DType, Device, View, ViewMut};

/// `y[i,j] = start + alpha · gain[j] · z[i,j]`.
#[derive(Debug)]
pub struct ScaleColumns<'a, D: Device> {
    /// `[rows, columns]`, of a type of activations.
    pub z: View<'a, D>,
    /// f32 `[columns]`; `None`: ones.
    pub gain: Option<View<'a, D>>,
    /// Factor of every element.
    pub alpha: f32,
    /// Values that the product is added to.
    pub start: Start<'a, D>,
    /// Overwritten or added into, `[rows, columns]`, of the type of `z`.
    pub y: ViewMut<'a, D>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

/// `dz[i,j] = gain[j] · dy[i,j]` and `dmagnitude[j] += Σ_i dy[i,j] · z[i,j] / norm[j]`.
#[derive(Debug)]
pub struct ScaleColumnsBackward<'a, D: Device> {
    /// `[rows, columns]`, of a type of activations.
    pub dy: View<'a, D>,
    /// `[rows, columns]`, of the type of `dy`.
    pub z: View<'a, D>,
    /// f32 `[columns]`: magnitude over norm.
    pub gain: View<'a, D>,
    /// f32 `[columns]`.
    pub norm: View<'a, D>,
    /// Overwritten, `[rows, columns]`, of the type of `dy`.
    pub dz: ViewMut<'a, D>,
    /// Added into, f32 `[columns]`.
    pub dmagnitude: ViewMut<'a, D>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

/// `norm[j] = √(squares[j] + 2s · Σ_p B[j,p]·U[p,j] + s² · Σ_pq B[j,p]·C[p,q]·B[j,q])` and
/// `gain[j] = magnitude[j] / norm[j]`, with `U = A·Wᵀ` and `C = A·Aᵀ`: the norms of the rows of
/// `W + s·B·A`, which is not computed.
#[derive(Debug)]
pub struct RowNorms<'a, D: Device> {
    /// f32 `[outputs]`: `Σ_i W[j,i]²`.
    pub squares: View<'a, D>,
    /// f32 `[outputs, rank]`.
    pub b: View<'a, D>,
    /// f32 `[rank, outputs]`.
    pub u: View<'a, D>,
    /// f32 `[rank, rank]`.
    pub c: View<'a, D>,
    /// f32 `[outputs]`.
    pub magnitude: View<'a, D>,
    /// s.
    pub scale: f32,
    /// Overwritten, f32 `[outputs]`.
    pub norm: ViewMut<'a, D>,
    /// Overwritten, f32 `[outputs]`.
    pub gain: ViewMut<'a, D>,
    /// Number of rows of `W`.
    pub outputs: usize,
    /// Rank of the adapter.
    pub rank: usize,
}

/// What DoRA (Liu et al., 2024) needs besides products. The arithmetic is f32; sums over rows have
/// an order that depends on the sizes alone.
pub trait Dora: Device {
    /// Writes `y`, or adds into it.
    fn scale_columns(&self, args: Checked<ScaleColumns<'_, Self>>) -> Result<(), KernelError>;
    /// Writes `dz` and adds into `dmagnitude`.
    fn scale_columns_backward(
        &self,
        args: Checked<ScaleColumnsBackward<'_, Self>>,
    ) -> Result<(), KernelError>;
    /// Writes `norm` and `gain`.
    fn row_norms(&self, args: Checked<RowNorms<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for ScaleColumns<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let shape = [self.rows, self.columns];
        let dtype = operands.activation("z", self.z)?;
        operands.at_least("z", self.z, dtype, &shape)?;
        if let Some(gain) = self.gain {
            operands.exact("gain", gain, &[self.columns])?;
        }
        if let Start::Bias(bias) = self.start {
            operands.exact("bias", bias, &[self.columns])?;
        }
        operands.at_least("y", self.y.as_view(), dtype, &shape)
    }
}

impl<D: Device> Check for ScaleColumnsBackward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let shape = [self.rows, self.columns];
        let dtype = operands.activation("dy", self.dy)?;
        operands.at_least("dy", self.dy, dtype, &shape)?;
        operands.at_least("z", self.z, dtype, &shape)?;
        operands.exact("gain", self.gain, &[self.columns])?;
        operands.exact("norm", self.norm, &[self.columns])?;
        operands.at_least("dz", self.dz.as_view(), dtype, &shape)?;
        operands.exact("dmagnitude", self.dmagnitude.as_view(), &[self.columns])
    }
}

impl<D: Device> Check for RowNorms<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let (outputs, rank) = (self.outputs, self.rank);
        operands.exact("squares", self.squares, &[outputs])?;
        operands.exact("b", self.b, &[outputs, rank])?;
        operands.at_least("u", self.u, DType::F32, &[rank, outputs])?;
        operands.at_least("c", self.c, DType::F32, &[rank, rank])?;
        operands.exact("magnitude", self.magnitude, &[outputs])?;
        operands.exact("norm", self.norm.as_view(), &[outputs])?;
        operands.exact("gain", self.gain.as_view(), &[outputs])
    }
}
