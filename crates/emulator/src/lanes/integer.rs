//! Integer arithmetic.
use super::{LaneFn, Resolved, lanes};
use crate::decode::Modifiers;
use crate::ptx::types::ScalarType::{self, *};

/// The same expression for every integer type; `T` names it.
macro_rules! integers {
    ($ty:expr, |$($x:ident),+| $e:expr) => {
        match $ty {
            U16 | B16 => { type T = u16; Some(lanes!(|$($x: T),+| $e)) }
            S16 => { type T = i16; Some(lanes!(|$($x: T),+| $e)) }
            U32 | B32 => { type T = u32; Some(lanes!(|$($x: T),+| $e)) }
            S32 => { type T = i32; Some(lanes!(|$($x: T),+| $e)) }
            U64 | B64 => { type T = u64; Some(lanes!(|$($x: T),+| $e)) }
            S64 => { type T = i64; Some(lanes!(|$($x: T),+| $e)) }
            _ => None,
        }
    };
}

/// Upper half of a product, per type (`.hi` in PTX).
fn multiply_high(ty: ScalarType) -> Option<LaneFn> {
    Some(match ty {
        U16 => lanes!(|a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16),
        S16 => lanes!(|a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16),
        U32 => lanes!(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        S32 => lanes!(|a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        U64 => lanes!(|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        S64 => lanes!(|a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64),
        _ => return None,
    })
}

fn multiply_add_high(ty: ScalarType) -> Option<LaneFn> {
    Some(match ty {
        U32 => lanes!(|a: u32, b: u32, c: u32| {
            (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
        }),
        S32 => lanes!(|a: i32, b: i32, c: i32| {
            (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c)
        }),
        U64 => lanes!(|a: u64, b: u64, c: u64| {
            (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c)
        }),
        S64 => lanes!(|a: i64, b: i64, c: i64| {
            (((i128::from(a) * i128::from(b)) >> 64) as i64).wrapping_add(c)
        }),
        _ => return None,
    })
}

/// The product in twice the width, plus `c` (zero for `mul`).
fn multiply_wide(ty: ScalarType) -> Option<LaneFn> {
    Some(match ty {
        U16 => lanes!(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
        S16 => lanes!(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
        U32 => lanes!(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
        S32 => lanes!(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
        _ => return None,
    })
}

/// Sum of the products of the four bytes (`parts` 4) of `a` and `b`, signed or not, plus `c`.
fn dot_bytes(a: u32, b: u32, c: u32, signed: (bool, bool)) -> u32 {
    let byte = |v: u32, i: u32, signed: bool| {
        let raw = (v >> (8 * i)) as u8;
        if signed {
            i32::from(raw as i8)
        } else {
            i32::from(raw)
        }
    };
    (0..4).fold(c, |sum, i| {
        sum.wrapping_add((byte(a, i, signed.0) * byte(b, i, signed.1)) as u32)
    })
}

pub(super) fn resolve(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    let ty = modifiers.ty()?;
    if !ty.is_integer() {
        return None;
    }
    let bits = ty.bits();
    let (function, inputs) = match opcode {
        "add" | "sub" if ty == S32 && modifiers.take("sat") => match opcode {
            "add" => (lanes!(|a: i32, b: i32| a.saturating_add(b)), 2),
            _ => (lanes!(|a: i32, b: i32| a.saturating_sub(b)), 2),
        },
        "add" => (integers!(ty, |a, b| T::wrapping_add(a, b))?, 2),
        "sub" => (integers!(ty, |a, b| T::wrapping_sub(a, b))?, 2),
        "mul" | "mul24" if modifiers.take("lo") || opcode == "mul24" => {
            if opcode == "mul24" {
                return None;
            }
            (integers!(ty, |a, b| T::wrapping_mul(a, b))?, 2)
        }
        "mul" if modifiers.take("hi") => (multiply_high(ty)?, 2),
        "mul" if modifiers.take("wide") => (multiply_wide(ty)?, 2),
        "mad" if modifiers.take("lo") => (
            integers!(ty, |a, b, c| T::wrapping_mul(a, b).wrapping_add(c))?,
            3,
        ),
        "mad" if modifiers.take("hi") => (multiply_add_high(ty)?, 3),
        "mad" if modifiers.take("wide") => {
            return Resolved::new(multiply_wide(ty)?, 3, bits).map(|r| r.width(2, bits * 2));
        }
        // The quotient by zero is unspecified; it is all ones, as on current processors.
        "div" => (
            integers!(ty, |a, b| if b == 0 {
                !(0 as T)
            } else {
                T::wrapping_div(a, b)
            })?,
            2,
        ),
        "rem" => (
            integers!(ty, |a, b| if b == 0 { a } else { T::wrapping_rem(a, b) })?,
            2,
        ),
        "min" => (integers!(ty, |a, b| T::min(a, b))?, 2),
        "max" => (integers!(ty, |a, b| T::max(a, b))?, 2),
        "neg" => (integers!(ty, |a| (0 as T).wrapping_sub(a))?, 1),
        "abs" => match ty {
            S16 => (lanes!(|a: i16| a.wrapping_abs()), 1),
            S32 => (lanes!(|a: i32| a.wrapping_abs()), 1),
            S64 => (lanes!(|a: i64| a.wrapping_abs()), 1),
            _ => return None,
        },
        "sad" => match ty {
            U32 => (
                lanes!(|a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b))),
                3,
            ),
            S32 => (
                lanes!(|a: i32, b: i32, c: u32| c.wrapping_add(a.abs_diff(b))),
                3,
            ),
            _ => return None,
        },
        "dp4a" => match modifiers.types() {
            [U32, U32] => (
                lanes!(|a: u32, b: u32, c: u32| dot_bytes(a, b, c, (false, false))),
                3,
            ),
            [U32, S32] => (
                lanes!(|a: u32, b: u32, c: u32| dot_bytes(a, b, c, (false, true))),
                3,
            ),
            [S32, U32] => (
                lanes!(|a: u32, b: u32, c: u32| dot_bytes(a, b, c, (true, false))),
                3,
            ),
            [S32, S32] => (
                lanes!(|a: u32, b: u32, c: u32| dot_bytes(a, b, c, (true, true))),
                3,
            ),
            _ => return None,
        },
        _ => return None,
    };
    Resolved::new(function, inputs, bits)
}
