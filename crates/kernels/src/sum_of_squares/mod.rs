//! The sum of squares of several tensors, for gradient norms.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View};

/// `Σ x²` over all elements of all tensors, accumulated in f64 in an order that depends on nothing
/// but their lengths.
#[derive(Debug)]
pub struct Sum<'a, D: Device> {
    /// f32, of any shapes.
    pub tensors: &'a [View<'a, D>],
}

/// Sums of squares. The sum is not finite exactly if some element is not finite.
pub trait SumOfSquares: Device {
    /// Returns the sum; blocks once until the device is done.
    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError>;
}

impl<D: Device> Check for Sum<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        self.tensors.iter().try_for_each(|&tensor| {
            operands.at_least("tensors", tensor, DType::F32, &[tensor.len()])
        })
    }
}
