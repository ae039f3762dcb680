//! Comparisons: two rows in, one bit per lane out.
use super::{Bits, Row};
use crate::ptx::types::ScalarType::{self, *};
use std::cmp::Ordering;

/// A comparison of whole rows.
pub(crate) type CompareFn = fn(&Row, &Row) -> u32;

/// A value with the order of its type.
trait Compared: Bits {
    fn order(self, other: Self) -> Option<Ordering>;
}

macro_rules! compared {
    ($($t:ty),*) => {$(
        impl Compared for $t {
            #[inline(always)]
            fn order(self, other: Self) -> Option<Ordering> {
                self.partial_cmp(&other)
            }
        }
    )*};
}
compared!(u16, i16, u32, i32, u64, i64, f32, f64);

impl Compared for super::Binary16 {
    #[inline(always)]
    fn order(self, other: Self) -> Option<Ordering> {
        self.to_f32().partial_cmp(&other.to_f32())
    }
}

impl Compared for super::Brain16 {
    #[inline(always)]
    fn order(self, other: Self) -> Option<Ordering> {
        self.to_f32().partial_cmp(&other.to_f32())
    }
}

/// An `f32` whose subnormals compare as zero.
#[derive(Clone, Copy)]
struct Flushed(f32);

impl Bits for Flushed {
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        Self(super::float::flush(f32::from_bits(bits as u32)))
    }
    #[inline(always)]
    fn into_bits(self) -> u64 {
        self.0.into_bits()
    }
}

impl Compared for Flushed {
    #[inline(always)]
    fn order(self, other: Self) -> Option<Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

/// Orderings that count as true, as bits: less, equal, greater, unordered.
const LESS: u8 = 1;
const EQUAL: u8 = 2;
const GREATER: u8 = 4;
const UNORDERED: u8 = 8;

fn rows<T: Compared, const TRUE: u8>(a: &Row, b: &Row) -> u32 {
    let mut out = 0;
    for i in 0..32 {
        let order = match T::from_bits(a[i]).order(T::from_bits(b[i])) {
            Some(Ordering::Less) => LESS,
            Some(Ordering::Equal) => EQUAL,
            Some(Ordering::Greater) => GREATER,
            None => UNORDERED,
        };
        out |= u32::from(order & TRUE != 0) << i;
    }
    out
}

fn truth(operator: &str) -> Option<u8> {
    Some(match operator {
        "eq" => EQUAL,
        "ne" => LESS | GREATER,
        "lt" | "lo" => LESS,
        "le" | "ls" => LESS | EQUAL,
        "gt" | "hi" => GREATER,
        "ge" | "hs" => GREATER | EQUAL,
        "equ" => EQUAL | UNORDERED,
        "neu" => LESS | GREATER | UNORDERED,
        "ltu" => LESS | UNORDERED,
        "leu" => LESS | EQUAL | UNORDERED,
        "gtu" => GREATER | UNORDERED,
        "geu" => GREATER | EQUAL | UNORDERED,
        "num" => LESS | EQUAL | GREATER,
        "nan" => UNORDERED,
        _ => return None,
    })
}

fn with_type<const TRUE: u8>(ty: ScalarType, flush: bool) -> Option<CompareFn> {
    Some(match ty {
        B16 | U16 => rows::<u16, TRUE>,
        S16 => rows::<i16, TRUE>,
        B32 | U32 => rows::<u32, TRUE>,
        S32 => rows::<i32, TRUE>,
        B64 | U64 => rows::<u64, TRUE>,
        S64 => rows::<i64, TRUE>,
        F16 => rows::<super::Binary16, TRUE>,
        BF16 => rows::<super::Brain16, TRUE>,
        F32 if flush => rows::<Flushed, TRUE>,
        F32 => rows::<f32, TRUE>,
        F64 => rows::<f64, TRUE>,
        _ => return None,
    })
}

/// The comparison that PTX writes as `operator` on `ty`, with `.ftz` if `flush`.
pub(crate) fn compare(operator: &str, ty: ScalarType, flush: bool) -> Option<CompareFn> {
    match truth(operator)? {
        1 => with_type::<1>(ty, flush),
        2 => with_type::<2>(ty, flush),
        3 => with_type::<3>(ty, flush),
        4 => with_type::<4>(ty, flush),
        5 => with_type::<5>(ty, flush),
        6 => with_type::<6>(ty, flush),
        7 => with_type::<7>(ty, flush),
        8 => with_type::<8>(ty, flush),
        9 => with_type::<9>(ty, flush),
        10 => with_type::<10>(ty, flush),
        11 => with_type::<11>(ty, flush),
        12 => with_type::<12>(ty, flush),
        13 => with_type::<13>(ty, flush),
        14 => with_type::<14>(ty, flush),
        _ => None,
    }
}
