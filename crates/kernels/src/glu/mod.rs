//! Gated linear units: SwiGLU and GeGLU.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{Device, View, ViewMut};

/// Activation function of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`: SwiGLU.
    Silu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: GeGLU, tanh form.
    GeluTanh,
    /// `½ x (1 + erf(x/√2))`: GeGLU, exact.
    GeluErf,
}

/// `y = activation(gate) · up`, elementwise.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// `[elements]`.
    pub gate: View<'a, D>,
    /// `[elements]`.
    pub up: View<'a, D>,
    /// Overwritten, `[elements]`.
    pub y: ViewMut<'a, D>,
    /// Activation function of the gate.
    pub activation: Activation,
    /// Number of elements to compute.
    pub elements: usize,
}

/// `dgate = dy · up · activation'(gate)`, `dup = dy · activation(gate)`; the activation is computed
/// again and every input is overwritten.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// Input: gate. Output: dgate. `[elements]`.
    pub gate: ViewMut<'a, D>,
    /// Input: up. Output: dup. `[elements]`.
    pub up: ViewMut<'a, D>,
    /// Input: dy. Output: y, which the gradient of the next projection's weights needs.
    /// `[elements]`.
    pub dy: ViewMut<'a, D>,
    /// Activation function of the forward pass.
    pub activation: Activation,
    /// Number of elements to compute.
    pub elements: usize,
}

/// Gated linear units (Shazeer, 2020). The arithmetic is f32; operands are all f32 or all bf16.
pub trait Glu: Device {
    /// Writes `y`.
    fn glu_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Overwrites all three buffers.
    fn glu_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dtype = operands.activation("gate", self.gate)?;
        operands.at_least("gate", self.gate, dtype, &[self.elements])?;
        operands.at_least("up", self.up, dtype, &[self.elements])?;
        operands.at_least("y", self.y.as_view(), dtype, &[self.elements])
    }
}

impl<D: Device> Check for Backward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dtype = operands.activation("gate", self.gate.as_view())?;
        operands.at_least("gate", self.gate.as_view(), dtype, &[self.elements])?;
        operands.at_least("up", self.up.as_view(), dtype, &[self.elements])?;
        operands.at_least("dy", self.dy.as_view(), dtype, &[self.elements])
    }
}
