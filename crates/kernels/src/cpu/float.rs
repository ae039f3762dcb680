//! Numbers as they are stored: arithmetic is f32, and activations are rounded when they are stored.

use half::{bf16, f16};
use tightrope_device::{Element, vectorize};

/// A floating-point type of stored numbers.
pub(crate) trait Float: Element {
    /// The number.
    fn get(self) -> f32;
}

/// A type of activations.
pub(crate) trait Activation: Float {
    /// The nearest number, of two the even one; NaN stays NaN.
    fn rounded(x: f32) -> Self;
}

/// The slice, if it has elements of the other type.
pub(crate) fn same_type<T: Element, U: Element>(slice: &[T]) -> Option<&[U]> {
    (T::DTYPE == U::DTYPE).then(|| bytemuck::cast_slice(slice))
}

impl Float for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
}

impl Activation for f32 {
    #[inline(always)]
    fn rounded(x: f32) -> Self {
        x
    }
}

impl Float for bf16 {
    /// The upper half of an f32, without the branches of a general conversion.
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Activation for bf16 {
    #[inline(always)]
    fn rounded(x: f32) -> Self {
        let bits = x.to_bits();
        let is_nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        // A NaN keeps a bit of its significand that bf16 has.
        let quiet = bits >> 16 | 0x40;
        Self::from_bits(if is_nan { quiet } else { nearest } as u16)
    }
}

impl Float for f16 {
    /// The conversion is exact: a multiplication moves the exponent and also normalises subnormal
    /// numbers.
    #[inline(always)]
    fn get(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let shifted = f32::from_bits((bits & 0x7fff) << 13);
        // Exponents of all ones (infinity and NaN) become all ones again.
        let special = if bits & 0x7c00 == 0x7c00 {
            0x7f80_0000
        } else {
            0
        };
        // 2¹¹² is the difference of the biases.
        let magnitude = (shifted * f32::from_bits(0x7780_0000)).to_bits() | special;
        f32::from_bits(magnitude | (bits & 0x8000) << 16)
    }
}

vectorize! {
    /// `to = from`, for as many elements as both have.
    pub(crate) fn widen<T: Float>(to: &mut [f32], from: &[T]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = from.get();
        }
    }

    /// `to = from`, rounded, for as many elements as both have.
    pub(crate) fn round<T: Activation>(to: &mut [T], from: &[f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = T::rounded(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_upper_half_and_all_ties_round_as_in_the_half_crate() {
        for upper in 0..=u16::MAX {
            for lower in [0u16, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(upper) << 16 | u32::from(lower));
                let mut stored = [bf16::ZERO];
                round(&mut stored, &[x]);
                let expected = bf16::from_f32(x);
                assert_eq!(stored[0].to_bits(), expected.to_bits(), "{:x}", x.to_bits());
                assert_eq!(
                    stored[0].get().to_bits(),
                    u32::from(expected.to_bits()) << 16
                );
            }
            let (half, mut wide) = (f16::from_bits(upper), [0f32]);
            widen(&mut wide, &[half]);
            let same = wide[0].to_bits() == half.to_f32().to_bits();
            assert!(same || wide[0].is_nan() && half.is_nan(), "{upper:x}");
        }
    }
}
