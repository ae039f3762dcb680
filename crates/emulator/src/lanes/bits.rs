//! Logic, shifts, bit fields and permutations.
use super::{Resolved, lanes};
use crate::decode::Modifiers;
use crate::ptx::types::ScalarType::{self, *};

fn bit_field_extract(a: u64, position: u64, length: u64, bits: u64, signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let bit = |i: u64| if i < 64 { a >> i & 1 } else { 0 };
    // The sign is the field's top bit, or the value's if the field extends beyond it.
    let fill = if signed {
        bit((position + length - 1).min(bits - 1))
    } else {
        0
    };
    let available = bits.saturating_sub(position).min(length);
    let mask = |n: u64| if n >= 64 { !0 } else { (1u64 << n) - 1 };
    let field = if available == 0 {
        0
    } else {
        a >> position & mask(available)
    };
    let extension = if fill == 1 {
        mask(bits) & !mask(available)
    } else {
        0
    };
    field | extension
}

fn bit_field_insert(a: u64, b: u64, position: u64, length: u64, bits: u64) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 || position >= bits {
        return b;
    }
    let count = length.min(bits - position);
    let mask = (if count >= 64 { !0 } else { (1u64 << count) - 1 }) << position;
    (b & !mask) | (a << position & mask)
}

fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(a) | u64::from(b) << 32;
    (0..4).fold(0, |out, i| {
        let choice = selector >> (4 * i) & 0xf;
        let byte = (bytes >> (8 * (choice & 7))) as u8;
        let value = if choice & 8 != 0 {
            ((byte as i8) >> 7) as u8
        } else {
            byte
        };
        out | u32::from(value) << (8 * i)
    })
}

fn look_up(a: u32, b: u32, c: u32, table: u32) -> u32 {
    (0..8).filter(|i| table >> i & 1 == 1).fold(0, |out, i| {
        let pick = |value: u32, bit: u32| if i & bit != 0 { value } else { !value };
        out | (pick(a, 4) & pick(b, 2) & pick(c, 1))
    })
}

fn sign_fill_position(value: i64, bits: u32) -> u32 {
    let magnitude = if value < 0 { !value } else { value } as u64;
    let magnitude = if bits == 32 {
        magnitude & 0xffff_ffff
    } else {
        magnitude
    };
    63u32.wrapping_sub(magnitude.leading_zeros())
}

pub(super) fn resolve(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    let ty = modifiers.ty()?;
    if ty == Pred {
        return None;
    }
    let bits = ty.bits();
    let is_bits = matches!(ty, B16 | B32 | B64);
    let plain = |function, inputs| Resolved::new(function, inputs, bits);
    match opcode {
        "and" if is_bits => plain(lanes!(|a: u64, b: u64| a & b), 2),
        "or" if is_bits => plain(lanes!(|a: u64, b: u64| a | b), 2),
        "xor" if is_bits => plain(lanes!(|a: u64, b: u64| a ^ b), 2),
        "mov" => match bits {
            8 | 16 => plain(lanes!(|a: u16| a), 1),
            32 => plain(lanes!(|a: u32| a), 1),
            _ => plain(lanes!(|a: u64| a), 1),
        },
        "not" => match ty {
            B16 => plain(lanes!(|a: u16| !a), 1),
            B32 => plain(lanes!(|a: u32| !a), 1),
            B64 => plain(lanes!(|a: u64| !a), 1),
            _ => None,
        },
        "cnot" if ty == B32 => plain(lanes!(|a: u32| u32::from(a == 0)), 1),
        "shl" => Some(shift_left(ty)?.width(1, 32)),
        "shr" => Some(shift_right(ty)?.width(1, 32)),
        "shf" if ty == B32 => {
            let left = modifiers.take("l");
            let right = modifiers.take("r");
            let wrap = modifiers.take("wrap");
            let clamp = modifiers.take("clamp");
            plain(
                match (left, right, wrap, clamp) {
                    (true, false, true, false) => lanes!(|a: u32, b: u32, c: u32| {
                        ((u64::from(b) << 32 | u64::from(a)) << (c & 31) >> 32) as u32
                    }),
                    (true, false, false, true) => lanes!(|a: u32, b: u32, c: u32| {
                        ((u64::from(b) << 32 | u64::from(a)) << c.min(32) >> 32) as u32
                    }),
                    (false, true, true, false) => lanes!(|a: u32, b: u32, c: u32| {
                        ((u64::from(b) << 32 | u64::from(a)) >> (c & 31)) as u32
                    }),
                    (false, true, false, true) => lanes!(|a: u32, b: u32, c: u32| {
                        ((u64::from(b) << 32 | u64::from(a)) >> c.min(32)) as u32
                    }),
                    _ => return None,
                },
                3,
            )
        }
        "bfe" => {
            let function = match ty {
                U32 => lanes!(|a: u64, b: u64, c: u64| bit_field_extract(a, b, c, 32, false)),
                S32 => lanes!(|a: u64, b: u64, c: u64| bit_field_extract(a, b, c, 32, true)),
                U64 => lanes!(|a: u64, b: u64, c: u64| bit_field_extract(a, b, c, 64, false)),
                S64 => lanes!(|a: u64, b: u64, c: u64| bit_field_extract(a, b, c, 64, true)),
                _ => return None,
            };
            Some(plain(function, 3)?.width(1, 32).width(2, 32))
        }
        "bfi" => {
            let function = match ty {
                B32 => lanes!(|a: u64, b: u64, c: u64, d: u64| bit_field_insert(a, b, c, d, 32)),
                B64 => lanes!(|a: u64, b: u64, c: u64, d: u64| bit_field_insert(a, b, c, d, 64)),
                _ => return None,
            };
            Some(plain(function, 4)?.width(2, 32).width(3, 32))
        }
        "bmsk" if ty == B32 => {
            modifiers.take("clamp").then_some(())?;
            plain(
                lanes!(|a: u64, b: u64| bit_field_insert(!0, 0, a.min(255), b.min(255), 32)),
                2,
            )
        }
        "prmt" if ty == B32 => plain(lanes!(|a: u32, b: u32, c: u32| permute(a, b, c)), 3),
        "lop3" if ty == B32 => plain(
            lanes!(|a: u32, b: u32, c: u32, d: u32| look_up(a, b, c, d)),
            4,
        ),
        "popc" => match ty {
            B32 => plain(lanes!(|a: u32| a.count_ones()), 1),
            B64 => plain(lanes!(|a: u64| a.count_ones()), 1),
            _ => None,
        },
        "clz" => match ty {
            B32 => plain(lanes!(|a: u32| a.leading_zeros()), 1),
            B64 => plain(lanes!(|a: u64| a.leading_zeros()), 1),
            _ => None,
        },
        "brev" => match ty {
            B32 => plain(lanes!(|a: u32| a.reverse_bits()), 1),
            B64 => plain(lanes!(|a: u64| a.reverse_bits()), 1),
            _ => None,
        },
        // Distance of the bit from the top; all ones if there is none.
        "bfind" if modifiers.take("shiftamt") => match ty {
            U32 => plain(
                lanes!(|a: u32| a.checked_ilog2().map_or(!0, |at| 31 - at)),
                1,
            ),
            U64 => plain(
                lanes!(|a: u64| a.checked_ilog2().map_or(!0, |at| 63 - at)),
                1,
            ),
            _ => None,
        },
        "bfind" => match ty {
            U32 => plain(lanes!(|a: u32| 31u32.wrapping_sub(a.leading_zeros())), 1),
            U64 => plain(lanes!(|a: u64| 63u32.wrapping_sub(a.leading_zeros())), 1),
            S32 => plain(lanes!(|a: i32| sign_fill_position(i64::from(a), 32)), 1),
            S64 => plain(lanes!(|a: i64| sign_fill_position(a, 64)), 1),
            _ => None,
        },
        _ => None,
    }
}

fn shift_left(ty: ScalarType) -> Option<Resolved> {
    Resolved::new(
        match ty {
            B16 => lanes!(|a: u16, b: u32| if b < 16 { a << b } else { 0 }),
            B32 => lanes!(|a: u32, b: u32| if b < 32 { a << b } else { 0 }),
            B64 => lanes!(|a: u64, b: u32| if b < 64 { a << b } else { 0 }),
            _ => return None,
        },
        2,
        ty.bits(),
    )
}

fn shift_right(ty: ScalarType) -> Option<Resolved> {
    Resolved::new(
        match ty {
            B16 | U16 => lanes!(|a: u16, b: u32| if b < 16 { a >> b } else { 0 }),
            B32 | U32 => lanes!(|a: u32, b: u32| if b < 32 { a >> b } else { 0 }),
            B64 | U64 => lanes!(|a: u64, b: u32| if b < 64 { a >> b } else { 0 }),
            S16 => lanes!(|a: i16, b: u32| a >> b.min(15)),
            S32 => lanes!(|a: i32, b: u32| a >> b.min(31)),
            S64 => lanes!(|a: i64, b: u32| a >> b.min(63)),
            _ => return None,
        },
        2,
        ty.bits(),
    )
}
