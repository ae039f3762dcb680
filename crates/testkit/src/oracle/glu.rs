//! Activations of gated linear units, and their derivatives.

use crate::erf;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, TAU};

/// `x / (1 + e⁻ˣ)`.
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Derivative of [`silu`].
pub fn silu_slope(x: f64) -> f64 {
    let s = 1.0 / (1.0 + (-x).exp());
    s * (1.0 + x * (1.0 - s))
}

/// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, in the form that does not cancel.
pub fn gelu_tanh(x: f64) -> f64 {
    let u = FRAC_2_PI.sqrt() * (x + 0.044715 * x.powi(3));
    x / (1.0 + (-2.0 * u).exp())
}

/// Derivative of [`gelu_tanh`].
pub fn gelu_tanh_slope(x: f64) -> f64 {
    let u = FRAC_2_PI.sqrt() * (x + 0.044715 * x.powi(3));
    let du = FRAC_2_PI.sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
    0.5 * (1.0 + u.tanh()) + 0.5 * x * du * (1.0 - u.tanh().powi(2))
}

/// `½ x (1 + erf(x/√2))`.
pub fn gelu_erf(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// Derivative of [`gelu_erf`].
pub fn gelu_erf_slope(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * (-0.5 * x * x).exp() / TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finite_difference;

    #[test]
    fn slopes_are_derivatives() {
        type Function = fn(f64) -> f64;
        let pairs: [(Function, Function); 3] = [
            (silu, silu_slope),
            (gelu_tanh, gelu_tanh_slope),
            (gelu_erf, gelu_erf_slope),
        ];
        for (value, slope) in pairs {
            for x in [-6.0, -1.3, -0.5, 0.0, 0.7, 2.0, 5.0] {
                let numeric = finite_difference(&[x], |x| value(x[0]))[0];
                assert!((slope(x) - numeric).abs() < 1e-8, "{x}");
            }
        }
    }

    #[test]
    fn values_are_the_textbooks() {
        // PyTorch: F.silu(1.), F.gelu(1., approximate="tanh"), F.gelu(1.).
        assert!((silu(1.0) - 0.731_058_578_6).abs() < 1e-9);
        assert!((gelu_tanh(1.0) - 0.841_191_990_6).abs() < 1e-9);
        assert!((gelu_erf(1.0) - 0.841_344_746_1).abs() < 1e-9);
    }
}
