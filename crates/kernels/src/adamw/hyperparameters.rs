//! Hyperparameters of an update.

use crate::{KernelError, check};

/// Everything that an update needs besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Decay β₁ of the first moment.
    pub beta1: f64,
    /// Decay β₂ of the second moment.
    pub beta2: f64,
    /// Added outside the root.
    pub eps: f64,
    /// Weight decay λ; 0 for norms and biases.
    pub weight_decay: f64,
    /// Number t of the step, counted from 1.
    pub step: u64,
    /// Factor of clipping by global norm: min(1, maximum / norm).
    pub gradient_scale: f64,
}

impl Hyperparameters {
    /// Checks that the formula has a meaning for these values.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        check::step(self.step)?;
        check::below_one("beta1", self.beta1)?;
        check::below_one("beta2", self.beta2)?;
        if self.eps.is_nan() || self.eps < 0.0 {
            return Err(KernelError::Value {
                operand: "eps",
                value: self.eps,
                rule: "must be at least 0",
            });
        }
        Ok(())
    }
}

/// Values that do not depend on the element, computed in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors {
    pub gradient: f32,
    pub keep: f32,
    pub blend1: f32,
    pub beta2: f32,
    pub blend2: f32,
    pub root: f32,
    pub eps: f32,
    pub rate: f32,
}

impl Factors {
    pub(crate) fn new(h: &Hyperparameters) -> Self {
        let step = h.step as f64;
        let correction1 = 1.0 - h.beta1.powf(step);
        let correction2 = 1.0 - h.beta2.powf(step);
        Self {
            gradient: h.gradient_scale as f32,
            keep: (1.0 - h.learning_rate * h.weight_decay) as f32,
            blend1: (1.0 - h.beta1) as f32,
            beta2: h.beta2 as f32,
            blend2: (1.0 - h.beta2) as f32,
            root: (1.0 / correction2.sqrt()) as f32,
            eps: h.eps as f32,
            rate: (h.learning_rate / correction1) as f32,
        }
    }

    /// Updates one element. Rust fuses operations only where the code says so, and GPUs compute the
    /// same.
    #[inline(always)]
    pub(crate) fn step(&self, gradient: f32, weight: &mut f32, m: &mut f32, v: &mut f32) {
        let g = self.gradient * gradient;
        *m = self.blend1.mul_add(g - *m, *m);
        *v = (self.blend2 * g).mul_add(g, self.beta2 * *v);
        let denominator = v.sqrt().mul_add(self.root, self.eps);
        *weight = (*weight * self.keep) - self.rate * (*m / denominator);
    }
}
