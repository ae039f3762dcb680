//! Weights in 8 bits, with one scale per row.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
mod quantize;
#[cfg(test)]
mod tests;

pub use quantize::{Quantized, quantize};

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// `y[r,c] = code[r,c] · (absmax[r] / 127)`, computed in f32 and rounded to the type of `y`.
///
/// A row consists of the elements that share a scale: an output of a projection, as in
/// bitsandbytes' `CB` and `SCB`, or a block of any other length.
#[derive(Debug)]
pub struct Dequantize<'a, D: Device> {
    /// Integers from −127 to 127 in two's complement, u8 `[rows, columns]`.
    pub codes: View<'a, D>,
    /// Largest magnitude of each row, f32 `[rows]`.
    pub absmax: View<'a, D>,
    /// Overwritten, `[rows, columns]`; f32 or bf16.
    pub y: ViewMut<'a, D>,
    /// Number of rows to compute.
    pub rows: usize,
    /// Number of elements that share a scale.
    pub columns: usize,
}

/// Weights in 8 bits (Dettmers et al., 2022). `y` is of a type of activations. A scale
/// that is not finite makes its row not finite. Weights are quantised on the host ([`quantize`]).
pub trait Absmax: Device {
    /// Writes `y`.
    fn absmax_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Dequantize<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dims = [self.rows, self.columns];
        operands.at_least("codes", self.codes, DType::U8, &dims)?;
        operands.at_least("absmax", self.absmax, DType::F32, &[self.rows])?;
        let dtype = operands.activation("y", self.y.as_view())?;
        operands.at_least("y", self.y.as_view(), dtype, &dims)
    }
}
