//! `cvt`: between all number formats, with rounding, clamping and saturation.
//!
//! The frequent conversions of kernels have special functions; all others go through an exact value
//! (an integer, or an `f64` rounded to odd) and a description of the target, which is a constant
//! operand.
use super::float::flush;
use super::rounding::{self, Rounding, integer_to_odd, to_integral};
use super::{Binary16, Brain16, LaneFn, Resolved, lanes};
use crate::decode::Modifiers;
use crate::ptx::types::ScalarType::{self, *};

/// Modifiers of a `cvt`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Conversion {
    to: ScalarType,
    from: ScalarType,
    rounding: Rounding,
    /// Rounds a float to an integral value (`.rni` and its like).
    integral: bool,
    saturate: bool,
    flush: bool,
    relu: bool,
    finite: bool,
}

const ROUNDINGS: [Rounding; 5] = [
    Rounding::Nearest,
    Rounding::NearestAway,
    Rounding::Zero,
    Rounding::Down,
    Rounding::Up,
];

impl Conversion {
    fn pack(self) -> u64 {
        let rounding = ROUNDINGS
            .iter()
            .position(|r| *r == self.rounding)
            .unwrap_or(0) as u64;
        let flags = [
            self.integral,
            self.saturate,
            self.flush,
            self.relu,
            self.finite,
        ];
        let flags = flags
            .iter()
            .enumerate()
            .fold(0, |all, (i, on)| all | u64::from(*on) << i);
        u64::from(self.to.code()) | u64::from(self.from.code()) << 8 | rounding << 16 | flags << 24
    }

    fn unpack(code: u64) -> Self {
        let flag = |i: u32| code >> (24 + i) & 1 == 1;
        Self {
            to: ScalarType::from_code(code as u8),
            from: ScalarType::from_code((code >> 8) as u8),
            rounding: ROUNDINGS[(code >> 16 & 0xff) as usize % ROUNDINGS.len()],
            integral: flag(0),
            saturate: flag(1),
            flush: flag(2),
            relu: flag(3),
            finite: flag(4),
        }
    }
}

enum Exact {
    Integer(i128),
    /// An `f64`, rounded to odd if it cannot hold the value.
    Float(f64),
}

fn exact(bits: u64, from: ScalarType, flushed: bool) -> Exact {
    match from {
        F16 => Exact::Float(f64::from(Binary16(bits as u16).to_f32())),
        BF16 => Exact::Float(f64::from(Brain16(bits as u16).to_f32())),
        F32 | TF32 => {
            let value = f32::from_bits(bits as u32);
            Exact::Float(f64::from(if flushed { flush(value) } else { value }))
        }
        F64 => Exact::Float(f64::from_bits(bits)),
        S8 => Exact::Integer(i128::from(bits as i8)),
        S16 => Exact::Integer(i128::from(bits as i16)),
        S32 => Exact::Integer(i128::from(bits as i32)),
        S64 => Exact::Integer(i128::from(bits as i64)),
        _ if from.bits() == 64 => Exact::Integer(i128::from(bits)),
        _ => Exact::Integer(i128::from(bits & ((1 << from.bits()) - 1))),
    }
}

fn range(ty: ScalarType) -> (i128, i128) {
    let bits = ty.bits();
    if ty.is_signed() {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    }
}

fn to_integer(value: Exact, c: Conversion) -> u64 {
    let (least, most) = range(c.to);
    let result = match value {
        Exact::Integer(value) if c.saturate => value.clamp(least, most),
        Exact::Integer(value) => value,
        Exact::Float(value) if value.is_nan() => {
            // The specification's rule for "not a number".
            let wide = c.from == F64 || c.to.bits() == 64;
            if wide { 1i128 << (c.to.bits() - 1) } else { 0 }
        }
        Exact::Float(value) => {
            let integral = to_integral(value, c.rounding);
            (integral as i128).clamp(least, most)
        }
    };
    // A narrow signed result is extended to the 16 bits of the smallest register.
    let bits = if c.to == S8 { 16 } else { c.to.bits() };
    if bits == 64 {
        result as u64
    } else {
        result as u64 & ((1 << bits) - 1)
    }
}

fn to_float(value: Exact, c: Conversion) -> u64 {
    let mut value = match value {
        Exact::Integer(value) => integer_to_odd(value),
        Exact::Float(value) if c.integral => to_integral(value, c.rounding),
        Exact::Float(value) => value,
    };
    if c.saturate {
        value = if value > 0.0 { value.min(1.0) } else { 0.0 };
    }
    if c.relu && value < 0.0 {
        value = 0.0;
    }
    let clamp = |value: f64, most: f64| {
        if c.finite {
            value.clamp(-most, most)
        } else {
            value
        }
    };
    match c.to {
        F16 => Binary16::from_f64(clamp(value, rounding::F16.max), c.rounding)
            .0
            .into(),
        BF16 => Brain16::from_f64(clamp(value, rounding::BF16.max), c.rounding)
            .0
            .into(),
        F64 => value.to_bits(),
        _ if value.is_nan() => 0x7fff_ffff,
        TF32 => {
            let value = clamp(value, rounding::TF32.max);
            u64::from((rounding::TF32.round(value, c.rounding) as f32).to_bits())
        }
        _ => {
            let rounded = rounding::F32.round(value, c.rounding) as f32;
            u64::from(if c.flush { flush(rounded) } else { rounded }.to_bits())
        }
    }
}

fn convert(a: u64, b: u64, code: u64) -> u64 {
    let c = Conversion::unpack(code);
    let half = match c.to {
        F16x2 => F16,
        BF16x2 => BF16,
        _ => {
            let value = exact(a, c.from, c.flush);
            return if c.to.is_float() {
                to_float(value, c)
            } else {
                to_integer(value, c)
            };
        }
    };
    let one = Conversion { to: half, ..c };
    to_float(exact(a, c.from, c.flush), one) << 16 | to_float(exact(b, c.from, c.flush), one)
}

/// Functions for conversions that matter for speed.
fn quick(c: Conversion) -> Option<LaneFn> {
    if c.saturate || c.flush || c.relu || c.finite || c.integral && c.to.is_float() {
        return None;
    }
    Some(match (c.to, c.from, c.rounding) {
        (U64 | S64 | B64, U32, _) => lanes!(|a: u32| u64::from(a)),
        (U64 | S64 | B64, S32, _) => lanes!(|a: i32| i64::from(a)),
        (U32 | S32 | B32, U64 | S64, _) => lanes!(|a: u32| a),
        (U32 | S32 | B32, U16, _) => lanes!(|a: u16| u32::from(a)),
        (U32 | S32 | B32, S16, _) => lanes!(|a: i16| i32::from(a)),
        (U16 | S16 | B16, U32 | S32, _) => lanes!(|a: u16| a),
        (F32, F16, _) => lanes!(|a: Binary16| a.to_f32()),
        (F32, BF16, _) => lanes!(|a: Brain16| a.to_f32()),
        (BF16, F32, Rounding::Nearest) => lanes!(|a: f32| Brain16::from_f32(a)),
        (BF16x2, F32, Rounding::Nearest) => lanes!(|a: f32, b: f32| {
            u32::from(Brain16::from_f32(a).0) << 16 | u32::from(Brain16::from_f32(b).0)
        }),
        (F32, S32, Rounding::Nearest) => lanes!(|a: i32| a as f32),
        (F32, U32, Rounding::Nearest) => lanes!(|a: u32| a as f32),
        (F64, F32, _) => lanes!(|a: f32| f64::from(a)),
        (S32, F32, Rounding::Zero) => lanes!(|a: f32| a as i32),
        (U32, F32, Rounding::Zero) => lanes!(|a: f32| a as u32),
        _ => return None,
    })
}

pub(super) fn resolve(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    let (to, from) = match (opcode, modifiers.types()) {
        ("cvt", &[to, from]) => (to, from),
        _ => return None,
    };
    let word = modifiers.take_any(&["rni", "rzi", "rmi", "rpi", "rna", "rn", "rz", "rm", "rp"]);
    let rounding = match word {
        Some("rzi" | "rz") => Rounding::Zero,
        Some("rmi" | "rm") => Rounding::Down,
        Some("rpi" | "rp") => Rounding::Up,
        Some("rna") => Rounding::NearestAway,
        _ => Rounding::Nearest,
    };
    let integral = matches!(word, Some("rni" | "rzi" | "rmi" | "rpi"));
    // A float becomes an integer only in an integral mode, and a narrower float only in a plain
    // one.
    if from.is_float() && to.is_integer() && !integral {
        return None;
    }
    let conversion = Conversion {
        to,
        from,
        rounding,
        integral,
        saturate: modifiers.take("sat"),
        flush: modifiers.take("ftz"),
        relu: modifiers.take("relu"),
        finite: modifiers.take("satfinite"),
    };
    let inputs = if matches!(to, F16x2 | BF16x2) { 2 } else { 1 };
    if inputs == 2 && from != F32 {
        return None;
    }
    if let Some(function) = quick(conversion) {
        return Resolved::new(function, inputs, from.bits());
    }
    let code = conversion.pack();
    if inputs == 2 {
        let general = lanes!(|a: u64, b: u64, code: u64| convert(a, b, code));
        return Some(Resolved::new(general, 2, from.bits())?.constant(code));
    }
    let general = lanes!(|a: u64, code: u64| convert(a, 0, code));
    Some(Resolved::new(general, 1, from.bits())?.constant(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conversion(to: ScalarType, from: ScalarType, rounding: Rounding) -> Conversion {
        let flags = (false, false, false, false);
        let integral = from.is_float() && to.is_integer();
        Conversion {
            to,
            from,
            rounding,
            integral,
            saturate: flags.0,
            flush: flags.1,
            relu: flags.2,
            finite: flags.3,
        }
    }

    proptest! {
        /// Checks that the quick functions agree with the general ones.
        #[test]
        fn quick_and_general_agree(a: u64, b: u64) {
            for to in (0..19).map(ScalarType::from_code) {
                for from in (0..19).map(ScalarType::from_code) {
                    for rounding in ROUNDINGS {
                        let c = conversion(to, from, rounding);
                        let Some(function) = quick(c) else { continue };
                        let rows = [&[a; 32], &[b; 32], &[0; 32], &[0; 32]];
                        let (got, expected) = (function(&rows)[7], convert(a, b, c.pack()));
                        let is_nan = to == F32 && f32::from_bits(got as u32).is_nan()
                            || to == F64 && f64::from_bits(got).is_nan();
                        prop_assert!(got == expected || is_nan, "{c:?}: {got:#x} {expected:#x}");
                    }
                }
            }
        }

        #[test]
        fn descriptions_survive_packing(code in 0u64..(1 << 29)) {
            let c = Conversion::unpack(code);
            prop_assert_eq!(Conversion::unpack(c.pack()), c);
        }
    }
}
