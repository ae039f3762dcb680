//! `f16`, `bf16` and their packed pairs.
use super::rounding::{self, Rounding, fused_to_odd};
use super::{Bits, Resolved, lanes};
use crate::decode::Modifiers;
use crate::ptx::types::ScalarType;

/// IEEE 754 binary16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Binary16(pub u16);

/// bfloat16: the upper half of an `f32`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Brain16(pub u16);

/// The NaN that arithmetic in 16 bits returns.
const NAN: u16 = 0x7fff;

impl Binary16 {
    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        let sign = u32::from(self.0 & 0x8000) << 16;
        let magnitude = u32::from(self.0 & 0x7fff);
        // After the shift the exponent is too small by 112, also for subnormals.
        let scaled = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
        let value = if magnitude >= 0x7c00 {
            0x7f80_0000 | (magnitude & 0x3ff) << 13
        } else {
            scaled.to_bits()
        };
        f32::from_bits(sign | value)
    }

    pub(crate) fn from_f64(value: f64, rounding: Rounding) -> Self {
        if value.is_nan() {
            return Self(NAN);
        }
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        let rounded = rounding::F16.round(value, rounding).abs();
        let magnitude = if rounded.is_infinite() {
            0x7c00
        } else if rounded < 2f64.powi(-14) {
            (rounded * 2f64.powi(24)) as u16
        } else {
            let bits = rounded.to_bits();
            (((bits >> 42) as u32) - ((1023 - 15) << 10)) as u16
        };
        Self(sign | magnitude)
    }
}

impl Brain16 {
    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// Rounds to nearest, ties to even.
    #[inline(always)]
    pub(crate) fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Self(if value.is_nan() { NAN } else { rounded as u16 })
    }

    pub(crate) fn from_f64(value: f64, rounding: Rounding) -> Self {
        if value.is_nan() {
            return Self(NAN);
        }
        let rounded = rounding::BF16.round(value, rounding) as f32;
        Self((rounded.to_bits() >> 16) as u16)
    }
}

impl Bits for Binary16 {
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        Self(bits as u16)
    }
    #[inline(always)]
    fn into_bits(self) -> u64 {
        u64::from(self.0)
    }
}

impl Bits for Brain16 {
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        Self(bits as u16)
    }
    #[inline(always)]
    fn into_bits(self) -> u64 {
        u64::from(self.0)
    }
}

/// Operations that both formats share.
pub(super) trait Half: Bits {
    const SIGN: u16 = 0x8000;
    fn raw(self) -> u16;
    fn of(raw: u16) -> Self;
    fn wide(self) -> f64;
    fn nearest(value: f64) -> Self;
}

impl Half for Binary16 {
    #[inline(always)]
    fn raw(self) -> u16 {
        self.0
    }
    #[inline(always)]
    fn of(raw: u16) -> Self {
        Self(raw)
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self.to_f32())
    }
    #[inline(always)]
    fn nearest(value: f64) -> Self {
        Self::from_f64(value, Rounding::Nearest)
    }
}

impl Half for Brain16 {
    #[inline(always)]
    fn raw(self) -> u16 {
        self.0
    }
    #[inline(always)]
    fn of(raw: u16) -> Self {
        Self(raw)
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self.to_f32())
    }
    #[inline(always)]
    fn nearest(value: f64) -> Self {
        Self::from_f64(value, Rounding::Nearest)
    }
}

fn add<H: Half>(a: H, b: H) -> H {
    H::nearest(fused_to_odd(1.0, a.wide(), b.wide()))
}
fn sub<H: Half>(a: H, b: H) -> H {
    H::nearest(fused_to_odd(-1.0, b.wide(), a.wide()))
}
fn mul<H: Half>(a: H, b: H) -> H {
    H::nearest(a.wide() * b.wide())
}
fn fma<H: Half>(a: H, b: H, c: H) -> H {
    H::nearest(fused_to_odd(a.wide(), b.wide(), c.wide()))
}
/// Clamped to `[0, 1]`; NaN becomes zero.
fn saturated<H: Half>(a: H) -> H {
    let value = a.wide();
    H::nearest(if value > 0.0 { value.min(1.0) } else { 0.0 })
}
/// Negative numbers become zero, NaN stays.
fn relu<H: Half>(a: H) -> H {
    if a.wide() < 0.0 { H::nearest(0.0) } else { a }
}
fn neg<H: Half>(a: H) -> H {
    H::of(a.raw() ^ H::SIGN)
}
fn abs<H: Half>(a: H) -> H {
    H::of(a.raw() & !H::SIGN)
}
fn least<H: Half>(a: H, b: H) -> H {
    H::nearest(super::float::min(a.wide(), b.wide()))
}
fn most<H: Half>(a: H, b: H) -> H {
    H::nearest(super::float::max(a.wide(), b.wide()))
}
fn least_nan<H: Half>(a: H, b: H) -> H {
    if a.wide().is_nan() || b.wide().is_nan() {
        return H::nearest(f64::NAN);
    }
    least(a, b)
}
fn most_nan<H: Half>(a: H, b: H) -> H {
    if a.wide().is_nan() || b.wide().is_nan() {
        return H::nearest(f64::NAN);
    }
    most(a, b)
}
pub(super) fn exp2<H: Half>(a: H) -> H {
    H::nearest(a.wide().exp2())
}
pub(super) fn tanh<H: Half>(a: H) -> H {
    H::nearest(a.wide().tanh())
}

/// Applies an operation on halves to both halves of a pair.
#[inline(always)]
fn pair<H: Half>(f: impl Fn(H, H, H) -> H, a: u32, b: u32, c: u32) -> u32 {
    let low = f(H::of(a as u16), H::of(b as u16), H::of(c as u16)).raw();
    let high = f(
        H::of((a >> 16) as u16),
        H::of((b >> 16) as u16),
        H::of((c >> 16) as u16),
    )
    .raw();
    u32::from(low) | u32::from(high) << 16
}

/// The same expression for the four types; `H` names the format of one half.
macro_rules! halves {
    ($ty:expr, $inputs:expr, |$a:ident, $b:ident, $c:ident| $e:expr) => {
        match $ty {
            ScalarType::F16 => {
                type H = Binary16;
                Resolved::new(
                    lanes!(|$a: H, $b: H, $c: H| {
                        let _ = ($b, $c);
                        $e
                    }),
                    $inputs,
                    16,
                )
            }
            ScalarType::BF16 => {
                type H = Brain16;
                Resolved::new(
                    lanes!(|$a: H, $b: H, $c: H| {
                        let _ = ($b, $c);
                        $e
                    }),
                    $inputs,
                    16,
                )
            }
            ScalarType::F16x2 => {
                type H = Binary16;
                Resolved::new(
                    lanes!(|a: u32, b: u32, c: u32| pair::<H>(
                        |$a, $b, $c| {
                            let _ = ($b, $c);
                            $e
                        },
                        a,
                        b,
                        c
                    )),
                    $inputs,
                    32,
                )
            }
            ScalarType::BF16x2 => {
                type H = Brain16;
                Resolved::new(
                    lanes!(|a: u32, b: u32, c: u32| pair::<H>(
                        |$a, $b, $c| {
                            let _ = ($b, $c);
                            $e
                        },
                        a,
                        b,
                        c
                    )),
                    $inputs,
                    32,
                )
            }
            _ => None,
        }
    };
}

pub(super) fn resolve(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    use ScalarType::*;
    let ty = modifiers.ty()?;
    if !matches!(ty, F16 | BF16 | F16x2 | BF16x2) {
        return None;
    }
    // Subnormals of 16 bits survive `.ftz` only in f16; nvcc writes it for f16 alone. The flush is
    // not modelled: the modifier is left over and refused.
    match opcode {
        "add" | "sub" | "mul" => {
            modifiers.take("rn");
            let sat = modifiers.take("sat");
            match (opcode, sat) {
                ("add", false) => halves!(ty, 2, |a, b, c| add::<H>(a, b)),
                ("add", true) => halves!(ty, 2, |a, b, c| saturated::<H>(add::<H>(a, b))),
                ("sub", false) => halves!(ty, 2, |a, b, c| sub::<H>(a, b)),
                ("sub", true) => halves!(ty, 2, |a, b, c| saturated::<H>(sub::<H>(a, b))),
                (_, false) => halves!(ty, 2, |a, b, c| mul::<H>(a, b)),
                (_, true) => halves!(ty, 2, |a, b, c| saturated::<H>(mul::<H>(a, b))),
            }
        }
        "fma" => {
            modifiers.take("rn");
            if modifiers.take("relu") {
                return halves!(ty, 3, |a, b, c| relu::<H>(fma::<H>(a, b, c)));
            }
            if modifiers.take("sat") {
                return halves!(ty, 3, |a, b, c| saturated::<H>(fma::<H>(a, b, c)));
            }
            halves!(ty, 3, |a, b, c| fma::<H>(a, b, c))
        }
        "neg" => halves!(ty, 1, |a, b, c| neg::<H>(a)),
        "abs" => halves!(ty, 1, |a, b, c| abs::<H>(a)),
        "min" if modifiers.take("NaN") => halves!(ty, 2, |a, b, c| least_nan::<H>(a, b)),
        "max" if modifiers.take("NaN") => halves!(ty, 2, |a, b, c| most_nan::<H>(a, b)),
        "min" => halves!(ty, 2, |a, b, c| least::<H>(a, b)),
        "max" => halves!(ty, 2, |a, b, c| most::<H>(a, b)),
        "ex2" => {
            modifiers.take("approx");
            modifiers.take("ftz");
            halves!(ty, 1, |a, b, c| exp2::<H>(a))
        }
        "tanh" => {
            modifiers.take("approx");
            halves!(ty, 1, |a, b, c| tanh::<H>(a))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_the_way_through_f64() {
        for raw in 0..=u16::MAX {
            let half = Binary16(raw);
            let is_nan = raw & 0x7fff > 0x7c00;
            let back = Binary16::from_f64(half.wide(), Rounding::Nearest);
            assert_eq!(back.0, if is_nan { NAN } else { raw }, "{raw:#x}");
        }
    }

    #[test]
    fn every_bf16_survives_the_way_through_f64() {
        for raw in 0..=u16::MAX {
            let half = Brain16(raw);
            let is_nan = raw & 0x7fff > 0x7f80;
            assert_eq!(
                Brain16::from_f64(half.wide(), Rounding::Nearest).0,
                if is_nan { NAN } else { raw }
            );
            assert_eq!(
                Brain16::from_f32(half.to_f32()).0,
                if is_nan { NAN } else { raw }
            );
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(Binary16(0x3c00).to_f32(), 1.0);
        assert_eq!(Binary16(0x0001).to_f32(), 2f32.powi(-24));
        assert_eq!(Binary16(0xfbff).to_f32(), -65504.0);
        assert_eq!(Binary16(0x7c00).to_f32(), f32::INFINITY);
        assert_eq!(Brain16::from_f32(1.0 + 2f32.powi(-8)).0, 0x3f80);
        assert_eq!(Brain16::from_f32(1.0 + 3.0 * 2f32.powi(-8)).0, 0x3f82);
        assert_eq!(Brain16::from_f32(f32::MAX).0, 0x7f80);
    }
}
