//! The sum of squares of a tensor, for gradient norms.

mod cpu;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::at_least};
use tightrope_device::{DType, Device, Tensor};

/// `Σ x²`, accumulated in f64 in an order that depends on nothing but the length.
#[derive(Debug)]
pub struct Sum<'a, D: Device> {
    /// f32.
    pub x: &'a Tensor<D>,
}

/// Sums of squares. Not finite exactly when some element is not finite.
pub trait SumOfSquares: Device {
    /// Returns the sum.
    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError>;
}

impl<D: Device> Check for Sum<'_, D> {
    fn check(&self) -> Result<(), KernelError> {
        at_least("x", self.x, DType::F32, &[self.x.len()])
    }
}
