//! AdamW: Adam with decoupled weight decay.

mod cpu;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::at_least};
use tightrope_device::{DType, Device, Tensor};

/// One update of one parameter, as PyTorch has it. With `g = gradient_scale · gradient`:
/// `m = β₁m + (1−β₁)g`, `v = β₂v + (1−β₂)g²`,
/// `w = w·(1 − η·λ) − η · (m / (1−β₁ᵗ)) / (√(v / (1−β₂ᵗ)) + eps)`.
#[derive(Debug)]
pub struct Update<'a, D: Device> {
    /// Updated in place, f32 `[elements]`.
    pub weight: &'a mut Tensor<D>,
    /// f32 `[elements]`.
    pub gradient: &'a Tensor<D>,
    /// First moment, updated in place, f32 `[elements]`.
    pub m: &'a mut Tensor<D>,
    /// Second moment, updated in place, f32 `[elements]`.
    pub v: &'a mut Tensor<D>,
    /// η.
    pub learning_rate: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// Outside the root.
    pub eps: f64,
    /// λ; 0 for norms and biases.
    pub weight_decay: f64,
    /// t, counted from 1.
    pub step: u64,
    /// Clipping by global norm: min(1, maximum / norm).
    pub gradient_scale: f64,
}

/// AdamW (Loshchilov and Hutter, 2019).
pub trait AdamW: Device {
    /// Updates `weight`, `m` and `v`.
    fn adamw_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Update<'_, D> {
    fn check(&self) -> Result<(), KernelError> {
        if self.step == 0 {
            return Err(KernelError::Value {
                operand: "step",
                value: 0.0,
                rule: "is counted from 1",
            });
        }
        for (operand, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(KernelError::Value {
                    operand,
                    value: beta,
                    rule: "must be at least 0 and less than 1",
                });
            }
        }
        if self.eps.is_nan() || self.eps < 0.0 {
            return Err(KernelError::Value {
                operand: "eps",
                value: self.eps,
                rule: "must be at least 0",
            });
        }
        let elements = [self.weight.len()];
        at_least("weight", self.weight, DType::F32, &elements)?;
        at_least("gradient", self.gradient, DType::F32, &elements)?;
        at_least("m", self.m, DType::F32, &elements)?;
        at_least("v", self.v, DType::F32, &elements)
    }
}
