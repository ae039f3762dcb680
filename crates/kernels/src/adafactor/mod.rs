//! Adafactor: a second moment that is factored into rows and columns, and limited updates.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{
    Check, Checked, KernelError,
    check::{self, Operands},
};
use tightrope_device::{DType, Device, View, ViewMut};

/// Second moment of a parameter.
#[derive(Debug)]
pub enum SecondMoment<'a, D: Device> {
    /// Means over the rows and over the columns of a matrix: `v[i, j] = rows[i] · columns[j] /
    /// mean(rows)`.
    Factored {
        /// Updated in place, f32 `[rows]`.
        rows: ViewMut<'a, D>,
        /// Updated in place, f32 `[columns]`.
        columns: ViewMut<'a, D>,
    },
    /// Every element, updated in place, f32 `[rows, columns]`; there is one row.
    Whole(ViewMut<'a, D>),
}

/// One update of one parameter, as in `transformers.optimization.Adafactor`. With `g =
/// gradient_scale · gradient` and `β₂ = 1 − t^decay_rate`: each second moment becomes `β₂v +
/// (1−β₂)(mean(g²) + eps)`, where the mean is over a row, over a column or of one element; then `u =
/// g / √v`, `u = η · u / max(1, rms(u) / clip_threshold)`, `m = β₁m + (1−β₁)u` and `u = m` if there
/// is a first moment, `w = w·(1 − η·λ) − u`.
#[derive(Debug)]
pub struct Update<'a, D: Device> {
    /// Updated in place, f32 `[rows, columns]`.
    pub weight: ViewMut<'a, D>,
    /// f32 `[rows, columns]`.
    pub gradient: View<'a, D>,
    /// Second moment, updated in place.
    pub v: SecondMoment<'a, D>,
    /// First moment, updated in place, f32 `[rows, columns]`.
    pub m: Option<ViewMut<'a, D>>,
    /// Number of rows; 1 for a vector.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Hyperparameters of the update.
    pub hyperparameters: Hyperparameters,
}

/// Everything that an update needs besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Decay β₁ of the first moment, if there is one.
    pub beta1: f64,
    /// Exponent of β₂, below 0.
    pub decay_rate: f64,
    /// Added to the squared gradient; above 0.
    pub eps: f64,
    /// Largest root of the mean square of a direction; above 0.
    pub clip_threshold: f64,
    /// Weight decay λ; 0 for norms and biases.
    pub weight_decay: f64,
    /// Number t of the step, counted from 1.
    pub step: u64,
    /// Factor of clipping by global norm: min(1, maximum / norm).
    pub gradient_scale: f64,
}

/// Adafactor (Shazeer and Stern, 2018), computed in f32.
pub trait Adafactor: Device {
    /// Updates `weight` and the moments.
    fn adafactor_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Update<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let h = &self.hyperparameters;
        check::step(h.step)?;
        check::below_one("beta1", h.beta1)?;
        for (operand, value) in [
            ("eps", h.eps),
            ("clip_threshold", h.clip_threshold),
            ("-decay_rate", -h.decay_rate),
        ] {
            if value.is_nan() || value <= 0.0 {
                return Err(KernelError::Value {
                    operand,
                    value,
                    rule: "must be above 0",
                });
            }
        }
        let shape = [self.rows, self.columns];
        operands.at_least("weight", self.weight.as_view(), DType::F32, &shape)?;
        operands.at_least("gradient", self.gradient, DType::F32, &shape)?;
        match &self.v {
            SecondMoment::Factored { rows, columns } => {
                operands.at_least("v.rows", rows.as_view(), DType::F32, &[self.rows])?;
                operands.at_least("v.columns", columns.as_view(), DType::F32, &[self.columns])?;
            }
            SecondMoment::Whole(v) if self.rows == 1 => {
                operands.at_least("v", v.as_view(), DType::F32, &shape)?;
            }
            SecondMoment::Whole(_) => {
                return Err(KernelError::Form {
                    operand: "v",
                    rule: "the second moment of several rows is factored",
                });
            }
        }
        match &self.m {
            Some(m) => operands.at_least("m", m.as_view(), DType::F32, &shape),
            None => Ok(()),
        }
    }
}

/// Values that do not depend on the element, computed in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
struct Factors {
    gradient: f32,
    beta1: f32,
    blend1: f32,
    beta2: f32,
    blend2: f32,
    eps: f32,
    threshold: f32,
    keep: f32,
    rate: f32,
}

impl Factors {
    fn new(h: &Hyperparameters) -> Self {
        let blend2 = (h.step as f64).powf(h.decay_rate);
        Self {
            gradient: h.gradient_scale as f32,
            beta1: h.beta1 as f32,
            blend1: (1.0 - h.beta1) as f32,
            beta2: (1.0 - blend2) as f32,
            blend2: blend2 as f32,
            eps: h.eps as f32,
            threshold: h.clip_threshold as f32,
            keep: (1.0 - h.learning_rate * h.weight_decay) as f32,
            rate: h.learning_rate as f32,
        }
    }
}

/// Number of rows whose squares are added to one partial sum of a column. It is fixed, so that the
/// result does not depend on the device's threads.
const RUN: usize = 64;
