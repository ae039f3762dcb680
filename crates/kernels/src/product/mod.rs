//! Matrix products.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// A factor, stored by rows.
#[derive(Debug)]
pub struct Matrix<'a, D: Device> {
    /// Elements of the matrix, or of its transpose if `transposed` is set.
    pub elements: View<'a, D>,
    /// Whether the transpose is stored.
    pub transposed: bool,
}

impl<D: Device> Clone for Matrix<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Matrix<'_, D> {}

impl<'a, D: Device> Matrix<'a, D> {
    /// A matrix that is stored by rows.
    pub fn rows(elements: View<'a, D>) -> Self {
        Self {
            elements,
            transposed: false,
        }
    }

    /// A matrix whose transpose is stored by rows.
    pub fn columns(elements: View<'a, D>) -> Self {
        Self {
            elements,
            transposed: true,
        }
    }
}

/// `c = alpha · a·b`, or `c += alpha · a·b`.
#[derive(Debug)]
pub struct Args<'a, D: Device> {
    /// `[m, k]`; f32, or bf16 on a GPU.
    pub a: Matrix<'a, D>,
    /// `[k, n]`; f32, bf16 or f16.
    pub b: Matrix<'a, D>,
    /// Overwritten or added into, f32 `[m, n]`.
    pub c: ViewMut<'a, D>,
    /// Whether `c` is added into; otherwise its contents do not matter.
    pub accumulate: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// Number of rows of the result.
    pub m: usize,
    /// Number of columns of the result.
    pub n: usize,
    /// Number of terms of each sum.
    pub k: usize,
}

/// Products with f32 sums. On the CPU an element of `c` has the same bits for any number of
/// threads, rows and columns; on GPUs this holds under the condition that
/// [`Cuda::matmul`](tightrope_device::Cuda::matmul) states, and `b` is first converted to the type
/// of `a` if it has another type.
pub trait Product: Device {
    /// Writes `c`, or adds into it.
    fn product(&self, args: Checked<Args<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Args<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dtype = operands.activation("a", self.a.elements)?;
        operands.at_least("a", self.a.elements, dtype, &[self.m, self.k])?;
        let dtype = operands.float("b", self.b.elements)?;
        operands.at_least("b", self.b.elements, dtype, &[self.k, self.n])?;
        operands.at_least("c", self.c.as_view(), DType::F32, &[self.m, self.n])
    }
}
