//! Pure operations on the 32 lanes of a warp: rows of values in, a row of values out.
//!
//! An instruction without side effects is resolved once, when the module is loaded, to a function
//! on whole rows, which the compiler vectorises. Lanes that do not participate compute too, and
//! their results are dropped, so every function here is total.
mod approximate;
mod bits;
mod compare;
mod convert;
mod float;
mod half;
mod integer;
mod matrix;
pub(crate) mod rounding;
pub(crate) mod simd;

pub(crate) use compare::{CompareFn, compare};
pub(crate) use half::{Binary16, Brain16};
pub(crate) use matrix::multiply_matrices;

use crate::decode::Modifiers;

/// Values of one register in the 32 lanes of a warp, zero-extended.
pub(crate) type Row = [u64; 32];

/// An operation on whole rows; operands that an instruction lacks are rows of zeros.
pub(crate) type LaneFn = fn(&[&Row; 4]) -> Row;

/// A value in the form that a register holds.
pub(crate) trait Bits: Copy {
    fn from_bits(bits: u64) -> Self;
    fn into_bits(self) -> u64;
}

macro_rules! integer_bits {
    ($($t:ty as $u:ty),*) => {$(
        impl Bits for $t {
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as $t
            }
            #[inline(always)]
            fn into_bits(self) -> u64 {
                self as $u as u64
            }
        }
    )*};
}
integer_bits!(
    u8 as u8, i8 as u8, u16 as u16, i16 as u16, u32 as u32, i32 as u32, u64 as u64, i64 as u64
);

impl Bits for f32 {
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
    #[inline(always)]
    fn into_bits(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Bits for f64 {
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
    #[inline(always)]
    fn into_bits(self) -> u64 {
        self.to_bits()
    }
}

/// A [`LaneFn`] from an expression in one to four typed operands.
macro_rules! lanes {
    (|$a:ident: $ta:ty| $e:expr) => {
        $crate::lanes::lanes!(|$a: $ta, _b: u64, _c: u64, _d: u64| $e)
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty| $e:expr) => {
        $crate::lanes::lanes!(|$a: $ta, $b: $tb, _c: u64, _d: u64| $e)
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty| $e:expr) => {
        $crate::lanes::lanes!(|$a: $ta, $b: $tb, $c: $tc, _d: u64| $e)
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty, $d:ident: $td:ty| $e:expr) => {{
        #[inline(always)]
        fn lane(a: u64, b: u64, c: u64, d: u64) -> u64 {
            let $a = <$ta as $crate::lanes::Bits>::from_bits(a);
            let $b = <$tb as $crate::lanes::Bits>::from_bits(b);
            let $c = <$tc as $crate::lanes::Bits>::from_bits(c);
            let $d = <$td as $crate::lanes::Bits>::from_bits(d);
            $crate::lanes::Bits::into_bits($e)
        }
        $crate::lanes::simd::dispatched!(lane)
    }};
}
pub(crate) use lanes;

/// A resolved instruction: the function and the number of its operands.
pub(crate) struct Resolved {
    pub function: LaneFn,
    pub inputs: usize,
    /// Width in bits of each operand, if it differs from the type of the instruction.
    pub widths: [u32; 4],
    /// A constant that follows the operands.
    pub constant: Option<u64>,
}

impl Resolved {
    pub(crate) fn new(function: LaneFn, inputs: usize, bits: u32) -> Option<Self> {
        Some(Self {
            function,
            inputs,
            widths: [bits; 4],
            constant: None,
        })
    }

    pub(crate) fn constant(mut self, value: u64) -> Self {
        self.constant = Some(value);
        self
    }

    pub(crate) fn width(mut self, input: usize, bits: u32) -> Self {
        self.widths[input] = bits;
        self
    }
}

/// Function of a pure instruction; `None` if `opcode` is not one, or not in this form. It takes the
/// modifiers that it understands, and the caller refuses the rest.
pub(crate) fn resolve(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    integer::resolve(opcode, modifiers)
        .or_else(|| bits::resolve(opcode, modifiers))
        .or_else(|| float::resolve(opcode, modifiers))
        .or_else(|| half::resolve(opcode, modifiers))
        .or_else(|| approximate::resolve(opcode, modifiers))
        .or_else(|| convert::resolve(opcode, modifiers))
}
