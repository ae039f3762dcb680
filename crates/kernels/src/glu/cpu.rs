//! Gated linear units on the CPU.

use super::{Activation, Backward, Forward, Glu};
use crate::{
    Checked, KernelError,
    cpu::{
        block_rows, float,
        math::{erf, exp, sigmoid},
    },
};
use half::bf16;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use tightrope_device::{Cpu, DType, rows, vectorize};

impl Glu for Cpu {
    fn glu_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.gate.dtype() {
            DType::BF16 => run_forward::<bf16>(self, args),
            _ => run_forward::<f32>(self, args),
        }
    }

    fn glu_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.gate.dtype() {
            DType::BF16 => run_backward::<bf16>(self, args),
            _ => run_backward::<f32>(self, args),
        }
    }
}

fn run_forward<T: float::Activation>(cpu: &Cpu, args: Forward<'_, Cpu>) -> Result<(), KernelError> {
    let gate = &args.gate.as_slice::<T>()?[..args.elements];
    let up = &args.up.as_slice::<T>()?[..args.elements];
    let y = &mut args.y.into_slice::<T>()?[..args.elements];
    let block = match args.activation {
        Activation::Silu => forward::<T, Silu>,
        Activation::GeluTanh => forward::<T, GeluTanh>,
        Activation::GeluErf => forward::<T, GeluErf>,
    };
    let parts = (rows(gate, 1), rows(up, 1), rows(y, 1));
    cpu.for_each_block(
        args.elements,
        block_rows(1),
        parts,
        |_, _, (gate, up, y)| {
            block(gate.slice, up.slice, y.slice);
        },
    );
    Ok(())
}

fn run_backward<T: float::Activation>(
    cpu: &Cpu,
    args: Backward<'_, Cpu>,
) -> Result<(), KernelError> {
    let gate = &mut args.gate.into_slice::<T>()?[..args.elements];
    let up = &mut args.up.into_slice::<T>()?[..args.elements];
    let dy = &mut args.dy.into_slice::<T>()?[..args.elements];
    let block = match args.activation {
        Activation::Silu => backward::<T, Silu>,
        Activation::GeluTanh => backward::<T, GeluTanh>,
        Activation::GeluErf => backward::<T, GeluErf>,
    };
    let parts = (rows(gate, 1), rows(up, 1), rows(dy, 1));
    cpu.for_each_block(
        args.elements,
        block_rows(1),
        parts,
        |_, _, (gate, up, dy)| {
            block(gate.slice, up.slice, dy.slice);
        },
    );
    Ok(())
}

/// An activation and its derivative.
trait Gate {
    fn value(x: f32) -> f32;
    fn value_and_slope(x: f32) -> (f32, f32);
}

struct Silu;
impl Gate for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x)
    }
    #[inline(always)]
    fn value_and_slope(x: f32) -> (f32, f32) {
        let s = sigmoid(x);
        let value = x * s;
        (value, value.mul_add(1.0 - s, s))
    }
}

/// `½ (1 + tanh(u)) = σ(2u)`, which keeps the digits of the negative side.
struct GeluTanh;
impl GeluTanh {
    /// 2·√(2/π).
    const SCALE: f32 = 1.595_769;
    const CUBIC: f32 = 0.044_715;
}
impl Gate for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        let inner = (Self::SCALE * x) * (Self::CUBIC * x).mul_add(x, 1.0);
        x * sigmoid(inner)
    }
    #[inline(always)]
    fn value_and_slope(x: f32) -> (f32, f32) {
        let inner = (Self::SCALE * x) * (Self::CUBIC * x).mul_add(x, 1.0);
        let slope = Self::SCALE * (3.0 * Self::CUBIC * x).mul_add(x, 1.0);
        let s = sigmoid(inner);
        let value = x * s;
        (value, (value * slope).mul_add(1.0 - s, s))
    }
}

struct GeluErf;
impl Gate for GeluErf {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
    }
    #[inline(always)]
    fn value_and_slope(x: f32) -> (f32, f32) {
        // The density 1/√(2π) · exp(−x²/2); 1/√(2π) = (2/√π) · (1/√2) / 2.
        let density = 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * exp(-0.5 * x * x);
        let below = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
        (x * below, x.mul_add(density, below))
    }
}

vectorize! {
    fn forward<T: float::Activation, G: Gate>(gate: &[T], up: &[T], y: &mut [T]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = T::rounded(G::value(gate.get()) * up.get());
        }
    }

    fn backward<T: float::Activation, G: Gate>(gate: &mut [T], up: &mut [T], dy: &mut [T]) {
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            let (value, slope) = G::value_and_slope(gate.get());
            *gate = T::rounded(dy.get() * up.get() * slope);
            let dup = T::rounded(dy.get() * value);
            *dy = T::rounded(value * up.get());
            *up = dup;
        }
    }
}
