//! `f32` and `f64` arithmetic with every rounding mode of PTX.
use super::rounding::{
    self, Rounding, fused_to_odd, quotient_to_odd, square_root_to_odd, sum_to_odd,
};
use super::{LaneFn, Resolved, lanes};
use crate::decode::Modifiers;
use crate::ptx::types::ScalarType::*;

/// The NaN that `f32` arithmetic returns.
const NAN: f32 = f32::from_bits(0x7fff_ffff);

/// Makes every NaN the canonical one, by its bits, because the compiler may replace any NaN by
/// another.
#[inline(always)]
pub(super) fn canonical(value: f32) -> f32 {
    let bits = value.to_bits();
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    f32::from_bits(if is_nan { 0x7fff_ffff } else { bits })
}

/// Subnormals become zero of the same sign.
#[inline(always)]
pub(super) fn flush(value: f32) -> f32 {
    let is_small = value.abs() < f32::MIN_POSITIVE;
    if is_small {
        f32::from_bits(value.to_bits() & 0x8000_0000)
    } else {
        value
    }
}

/// Clamped to `[0, 1]`; NaN becomes zero.
#[inline(always)]
fn saturate(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// The smaller number; NaN only if both are NaN; −0 is smaller than +0.
#[inline(always)]
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// The larger number; NaN only if both are NaN; +0 is larger than −0.
#[inline(always)]
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a > b || (a == b && a.is_sign_positive()) {
        a
    } else {
        b
    }
}

#[inline(always)]
fn min32(a: f32, b: f32) -> f32 {
    canonical(min(f64::from(a), f64::from(b)) as f32)
}
#[inline(always)]
fn max32(a: f32, b: f32) -> f32 {
    canonical(max(f64::from(a), f64::from(b)) as f32)
}

/// `$e` plain, with `.ftz`, with `.sat`, and with both; `$x` are `f32`.
macro_rules! flavours {
    ($ftz:expr, $sat:expr, |$($x:ident),+| $e:expr) => {
        match ($ftz, $sat) {
            (false, false) => lanes!(|$($x: f32),+| canonical($e)),
            (true, false) => lanes!(|$($x: f32),+| { $(let $x = flush($x);)+ canonical(flush($e)) }),
            (false, true) => lanes!(|$($x: f32),+| saturate($e)),
            (true, true) => lanes!(|$($x: f32),+| { $(let $x = flush($x);)+ saturate(flush($e)) }),
        }
    };
}

/// A directed mode of an operation with the exact value `$e`, rounded to odd.
macro_rules! directed {
    ($rounding:expr, $ftz:expr, $sat:expr, |$($x:ident),+| $e:expr) => {
        match $rounding {
            Rounding::Zero => flavours!($ftz, $sat, |$($x),+| {
                $(let $x = f64::from($x);)+
                rounding::F32.round($e, Rounding::Zero) as f32
            }),
            Rounding::Down => flavours!($ftz, $sat, |$($x),+| {
                $(let $x = f64::from($x);)+
                negative_zero(rounding::F32.round($e, Rounding::Down) as f32, $e, &[$($x),+])
            }),
            _ => flavours!($ftz, $sat, |$($x),+| {
                $(let $x = f64::from($x);)+
                rounding::F32.round($e, Rounding::Up) as f32
            }),
        }
    };
}

/// When rounding towards negative infinity, an exact zero sum of numbers that are not both zero is
/// −0.
fn negative_zero(rounded: f32, exact: f64, operands: &[f64]) -> f32 {
    let cancelled = exact == 0.0 && operands.iter().all(|x| *x != 0.0) && operands.len() != 1;
    if cancelled { -0.0 } else { rounded }
}

fn rounding_of(modifiers: &mut Modifiers) -> Rounding {
    match modifiers.take_any(&["rn", "rz", "rm", "rp"]) {
        Some("rz") => Rounding::Zero,
        Some("rm") => Rounding::Down,
        Some("rp") => Rounding::Up,
        _ => Rounding::Nearest,
    }
}

pub(super) fn resolve(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    match modifiers.ty()? {
        F32 => single(opcode, modifiers),
        F64 => double(opcode, modifiers),
        _ => None,
    }
}

fn single(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    let plain = |function: LaneFn, inputs| Resolved::new(function, inputs, 32);
    match opcode {
        "add" | "sub" | "mul" | "fma" | "mad" => {
            let rounding = rounding_of(modifiers);
            let (ftz, sat) = (modifiers.take("ftz"), modifiers.take("sat"));
            let nearest = rounding == Rounding::Nearest;
            match opcode {
                "add" if nearest => plain(flavours!(ftz, sat, |a, b| a + b), 2),
                "sub" if nearest => plain(flavours!(ftz, sat, |a, b| a - b), 2),
                "mul" if nearest => plain(flavours!(ftz, sat, |a, b| a * b), 2),
                "add" => plain(directed!(rounding, ftz, sat, |a, b| sum_to_odd(a, b)), 2),
                "sub" => plain(directed!(rounding, ftz, sat, |a, b| sum_to_odd(a, -b)), 2),
                "mul" => plain(directed!(rounding, ftz, sat, |a, b| a * b), 2),
                _ if nearest => plain(flavours!(ftz, sat, |a, b, c| a.mul_add(b, c)), 3),
                _ => plain(
                    directed!(rounding, ftz, sat, |a, b, c| fused_to_odd(a, b, c)),
                    3,
                ),
            }
        }
        // `.approx` and `.full` have an error bound and no exact value; the nearest value is used.
        "div" => {
            modifiers.take_any(&["approx", "full"]);
            let rounding = rounding_of(modifiers);
            let ftz = modifiers.take("ftz");
            if rounding == Rounding::Nearest {
                return plain(flavours!(ftz, false, |a, b| a / b), 2);
            }
            plain(
                directed!(rounding, ftz, false, |a, b| quotient_to_odd(a, b)),
                2,
            )
        }
        "sqrt" | "rcp" => {
            modifiers.take("approx");
            let rounding = rounding_of(modifiers);
            let (ftz, nearest) = (modifiers.take("ftz"), rounding == Rounding::Nearest);
            match opcode {
                "sqrt" if nearest => plain(flavours!(ftz, false, |a| a.sqrt()), 1),
                "sqrt" => plain(
                    directed!(rounding, ftz, false, |a| square_root_to_odd(a)),
                    1,
                ),
                _ if nearest => plain(flavours!(ftz, false, |a| 1.0 / a), 1),
                _ => plain(
                    directed!(rounding, ftz, false, |a| quotient_to_odd(1.0, a)),
                    1,
                ),
            }
        }
        "neg" if modifiers.take("ftz") => plain(lanes!(|a: f32| -flush(a)), 1),
        "neg" => plain(lanes!(|a: f32| -a), 1),
        "abs" if modifiers.take("ftz") => plain(lanes!(|a: f32| flush(a).abs()), 1),
        "abs" => plain(lanes!(|a: f32| a.abs()), 1),
        "copysign" => plain(lanes!(|a: f32, b: f32| b.copysign(a)), 2),
        "min" | "max" => {
            let (nan, ftz) = (modifiers.take("NaN"), modifiers.take("ftz"));
            let function = match (opcode, nan) {
                ("min", false) => flavours!(ftz, false, |a, b| min32(a, b)),
                ("max", false) => flavours!(ftz, false, |a, b| max32(a, b)),
                ("min", true) => flavours!(ftz, false, |a, b| nan_of(a, b, min32(a, b))),
                _ => flavours!(ftz, false, |a, b| nan_of(a, b, max32(a, b))),
            };
            plain(function, 2)
        }
        _ => None,
    }
}

#[inline(always)]
fn nan_of(a: f32, b: f32, otherwise: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        NAN
    } else {
        otherwise
    }
}

fn double(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    let plain = |function: LaneFn, inputs| Resolved::new(function, inputs, 64);
    let directed = |opcode: &str, rounding: Rounding| -> Option<LaneFn> {
        Some(match (opcode, rounding) {
            ("add", Rounding::Zero) => lanes!(|a: f64, b: f64| sum64(a, b, Rounding::Zero)),
            ("add", Rounding::Down) => lanes!(|a: f64, b: f64| sum64(a, b, Rounding::Down)),
            ("add", Rounding::Up) => lanes!(|a: f64, b: f64| sum64(a, b, Rounding::Up)),
            ("sub", Rounding::Zero) => lanes!(|a: f64, b: f64| sum64(a, -b, Rounding::Zero)),
            ("sub", Rounding::Down) => lanes!(|a: f64, b: f64| sum64(a, -b, Rounding::Down)),
            ("sub", Rounding::Up) => lanes!(|a: f64, b: f64| sum64(a, -b, Rounding::Up)),
            ("mul", Rounding::Zero) => lanes!(|a: f64, b: f64| product64(a, b, Rounding::Zero)),
            ("mul", Rounding::Down) => lanes!(|a: f64, b: f64| product64(a, b, Rounding::Down)),
            ("mul", Rounding::Up) => lanes!(|a: f64, b: f64| product64(a, b, Rounding::Up)),
            // The other operations would need more than `f64` to be exact.
            _ => return None,
        })
    };
    match opcode {
        "add" | "sub" | "mul" | "fma" | "mad" | "div" | "sqrt" | "rcp" => {
            let rounding = rounding_of(modifiers);
            if rounding != Rounding::Nearest {
                return plain(directed(opcode, rounding)?, 2);
            }
            match opcode {
                "add" => plain(lanes!(|a: f64, b: f64| a + b), 2),
                "sub" => plain(lanes!(|a: f64, b: f64| a - b), 2),
                "mul" => plain(lanes!(|a: f64, b: f64| a * b), 2),
                "div" => plain(lanes!(|a: f64, b: f64| a / b), 2),
                "sqrt" => plain(lanes!(|a: f64| a.sqrt()), 1),
                "rcp" => {
                    if modifiers.take("approx") {
                        modifiers.take("ftz").then_some(())?;
                    }
                    plain(lanes!(|a: f64| 1.0 / a), 1)
                }
                _ => plain(lanes!(|a: f64, b: f64, c: f64| a.mul_add(b, c)), 3),
            }
        }
        "neg" => plain(lanes!(|a: f64| -a), 1),
        "abs" => plain(lanes!(|a: f64| a.abs()), 1),
        "min" => plain(lanes!(|a: f64, b: f64| min(a, b)), 2),
        "max" => plain(lanes!(|a: f64, b: f64| max(a, b)), 2),
        "copysign" => plain(lanes!(|a: f64, b: f64| b.copysign(a)), 2),
        _ => None,
    }
}

/// Moves `nearest` to its neighbour if the mode needs the other side of the exact value.
fn step(nearest: f64, error: f64, rounding: Rounding) -> f64 {
    if error == 0.0 || !nearest.is_finite() {
        return nearest;
    }
    match rounding {
        Rounding::Down if error < 0.0 => nearest.next_down(),
        Rounding::Up if error > 0.0 => nearest.next_up(),
        Rounding::Zero if error < 0.0 && nearest > 0.0 => nearest.next_down(),
        Rounding::Zero if error > 0.0 && nearest < 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

fn sum64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let sum = a + b;
    let from_b = sum - a;
    let error = (a - (sum - from_b)) + (b - from_b);
    let cancelled = sum == 0.0 && a != 0.0 && rounding == Rounding::Down;
    if cancelled {
        -0.0
    } else {
        step(sum, error, rounding)
    }
}

fn product64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let product = a * b;
    step(product, a.mul_add(b, -product), rounding)
}
