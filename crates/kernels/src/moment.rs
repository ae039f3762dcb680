//! Moments of optimizers, stored in f32 or in bf16.
//!
//! bf16 has 8 significant bits: rounded to nearest, a second moment that changes by a thousandth in
//! a step would never change. A number is therefore rounded up or down with the probabilities that
//! make the mean exact, by a hash of step and element.

use crate::{KernelError, cpu::float::Float};
use half::bf16;
use tightrope_device::{DType, Device, View};

/// A type that moments are stored in.
pub(crate) trait Moment: Float {
    /// Stores a number; the low 16 bits of `random` decide how it is rounded.
    fn store(&mut self, x: f32, random: u32);
}

impl Moment for f32 {
    #[inline(always)]
    fn store(&mut self, x: f32, _: u32) {
        *self = x;
    }
}

impl Moment for bf16 {
    #[inline(always)]
    fn store(&mut self, x: f32, random: u32) {
        let bits = x.to_bits();
        let finite = (bits & 0x7f80_0000) != 0x7f80_0000;
        // A NaN keeps a bit of its significand that bf16 has.
        let nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
        let added = if finite { random & 0xffff } else { 0 };
        let quiet = if nan { 0x40 } else { 0 };
        *self = Self::from_bits(((bits.wrapping_add(added)) >> 16) as u16 | quiet);
    }
}

/// 32 random bits for an element, from a number that differs for each step.
#[inline(always)]
pub(crate) fn random_bits(salt: u32, element: u64) -> u32 {
    let high = ((element >> 32) as u32).wrapping_mul(0x9e37_79b9);
    let mut x = element as u32 ^ salt ^ high;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The number for a step that [`random_bits`] takes.
pub(crate) fn salt(step: u64) -> u32 {
    // The finaliser of splitmix64: neighbouring steps differ in half of the bits.
    let mut x = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as u32
}

/// Checks the type of a moment: f32 or bf16.
pub(crate) fn stored_type<D: Device>(
    operand: &'static str,
    moment: View<'_, D>,
) -> Result<DType, KernelError> {
    match moment.dtype() {
        dtype @ (DType::F32 | DType::BF16) => Ok(dtype),
        got => Err(KernelError::DType {
            operand,
            expected: "f32 or bf16".into(),
            got,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_by_chance_is_exact_on_average_and_keeps_what_bf16_has() {
        let count = 1 << 16;
        for x in [1.001f32, -1.001, 3.0e-38, 7.77e20, 0.3] {
            let mut sum = 0.0;
            for element in 0..count {
                let mut stored = bf16::ZERO;
                stored.store(x, random_bits(salt(3), element));
                let got = f64::from(stored.get());
                // One of both neighbours.
                assert!((got / f64::from(x) - 1.0).abs() < 1.0 / 64.0, "{x} {got}");
                sum += got;
            }
            let mean = sum / count as f64;
            // The deviation of the mean is below half a step of 2⁻⁷ / √65536.
            assert!((mean / f64::from(x) - 1.0).abs() < 2e-4, "{x} {mean}");
        }
        for exact in [0.0f32, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY] {
            for random in [0, 1, 0xffff, 0xffff_ffff] {
                let mut stored = bf16::ONE;
                stored.store(exact, random);
                assert_eq!(stored.get().to_bits(), exact.to_bits());
            }
        }
        for nan in [0x7fc0_0000, 0x7fff_ffff, 0xff80_0001, 0x7f80_0001] {
            let mut stored = bf16::ONE;
            stored.store(f32::from_bits(nan), 0xffff);
            assert!(stored.is_nan(), "{nan:x}");
        }
    }
}
