//! The sums of squares of several tensors, for norms and for finding what is not finite.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands, moment};
use tightrope_device::{Device, View};

/// `Σ x²` over all elements of a tensor, accumulated in f64 in an order that depends on nothing but
/// its length.
#[derive(Debug)]
pub struct Sum<'a, D: Device> {
    /// f32 or bf16, of any shapes.
    pub tensors: &'a [View<'a, D>],
}

/// Sums of squares. A sum is not finite exactly if some element is not finite.
pub trait SumOfSquares: Device {
    /// Returns the sum of each tensor; blocks once until the device is done.
    fn sums_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<Vec<f64>, KernelError>;
    /// Returns the sum over all tensors; blocks once until the device is done.
    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError>;
}

impl<D: Device> Check for Sum<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        self.tensors.iter().try_for_each(|&tensor| {
            let dtype = moment::stored_type("tensors", tensor)?;
            operands.at_least("tensors", tensor, dtype, &[tensor.len()])
        })
    }
}
