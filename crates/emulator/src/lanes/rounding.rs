//! Correct rounding to narrower formats, in every mode of PTX.
//!
//! A result is first computed in `f64` rounded *to odd* (the last bit says whether anything was
//! truncated), and then rounded to its format. `f64` has more than twice the precision of the other
//! formats plus two bits, so only the second rounding has an effect.

/// Rounding of a value that its format cannot hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rounding {
    /// To nearest, ties to even (`.rn`).
    Nearest,
    /// To nearest, ties away from zero (`.rna`).
    NearestAway,
    /// Towards zero (`.rz`).
    Zero,
    /// Towards negative infinity (`.rm`).
    Down,
    /// Towards positive infinity (`.rp`).
    Up,
}

/// A binary floating-point format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Significant bits, the implicit one included.
    pub precision: i32,
    /// Exponent of the smallest normal number.
    pub least_exponent: i32,
    /// Largest finite number.
    pub max: f64,
}

pub(crate) const F32: Format = Format {
    precision: 24,
    least_exponent: -126,
    max: f32::MAX as f64,
};
pub(crate) const TF32: Format = Format {
    precision: 11,
    least_exponent: -126,
    max: 3.401_162_134_214_653e38,
};
pub(crate) const BF16: Format = Format {
    precision: 8,
    least_exponent: -126,
    max: 3.389_531_389_251_535_5e38,
};
pub(crate) const F16: Format = Format {
    precision: 11,
    least_exponent: -14,
    max: 65504.0,
};

/// The exact sum `a + b`, rounded to odd.
pub(crate) fn sum_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum;
    }
    let from_b = sum - a;
    to_odd(sum, (a - (sum - from_b)) + (b - from_b))
}

/// Turns `nearest`, the `f64` nearest to an exact value, into that value rounded to odd; `error`
/// has the sign of the exact value minus `nearest`.
pub(crate) fn to_odd(nearest: f64, error: f64) -> f64 {
    if error == 0.0 || !nearest.is_finite() {
        return nearest;
    }
    let towards_zero = (error > 0.0) != (nearest > 0.0) && nearest != 0.0;
    let bits = nearest.to_bits() - u64::from(towards_zero);
    f64::from_bits(bits | 1)
}

/// `a · b + c` of numbers with at most 24 significant bits, rounded to odd.
pub(crate) fn fused_to_odd(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    // An exact zero keeps the sign that IEEE 754 gives the sum.
    if product == 0.0 || c == 0.0 {
        product + c
    } else {
        sum_to_odd(product, c)
    }
}

/// Quotient rounded to odd.
pub(crate) fn quotient_to_odd(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    let remainder = f64::mul_add(-quotient, b, a);
    to_odd(quotient, if b < 0.0 { -remainder } else { remainder })
}

/// Square root rounded to odd.
pub(crate) fn square_root_to_odd(a: f64) -> f64 {
    let root = a.sqrt();
    to_odd(root, f64::mul_add(-root, root, a))
}

/// An integer rounded to odd.
pub(crate) fn integer_to_odd(value: i128) -> f64 {
    let nearest = value as f64;
    to_odd(nearest, (value - nearest as i128) as f64)
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// `value` rounded to an integer.
pub(crate) fn to_integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::NearestAway => value.round(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

impl Format {
    /// Rounds `value` to this format; overflow gives infinity or the largest number, depending on
    /// the mode.
    pub(crate) fn round(self, value: f64, rounding: Rounding) -> f64 {
        if value == 0.0 || !value.is_finite() {
            return value;
        }
        let exponent = ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        let quantum = exponent.max(self.least_exponent) - (self.precision - 1);
        let units = to_integral(value * power_of_two(-quantum), rounding);
        let rounded = units * power_of_two(quantum);
        if rounded.abs() <= self.max {
            return rounded;
        }
        let to_infinity = match rounding {
            Rounding::Nearest | Rounding::NearestAway => true,
            Rounding::Zero => false,
            Rounding::Down => value < 0.0,
            Rounding::Up => value > 0.0,
        };
        let limit = if to_infinity { f64::INFINITY } else { self.max };
        limit.copysign(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bf16_in_every_mode() {
        // 1 + 2^-8 lies half-way between 1 and 1 + 2^-7.
        let half_way = 1.0 + 2f64.powi(-8);
        let above = 1.0 + 2f64.powi(-7);
        use Rounding::*;
        for (value, rounding, expected) in [
            (half_way, Nearest, 1.0),
            (half_way, NearestAway, above),
            (half_way, Zero, 1.0),
            (half_way, Down, 1.0),
            (half_way, Up, above),
            (-half_way, Down, -above),
            (-half_way, Up, -1.0),
            (-half_way, NearestAway, -above),
            (f64::from_bits(half_way.to_bits() + 1), Nearest, above),
        ] {
            assert_eq!(
                BF16.round(value, rounding),
                expected,
                "{value:e} {rounding:?}"
            );
        }
    }

    #[test]
    fn overflow_depends_on_the_mode() {
        use Rounding::*;
        assert_eq!(F16.round(65520.0, Nearest), f64::INFINITY);
        assert_eq!(F16.round(65519.9, Nearest), 65504.0);
        assert_eq!(F16.round(1e9, Zero), 65504.0);
        assert_eq!(F16.round(1e9, Down), 65504.0);
        assert_eq!(F16.round(-1e9, Down), f64::NEG_INFINITY);
        assert_eq!(F16.round(-1e9, Up), -65504.0);
    }

    #[test]
    fn subnormals_keep_their_quantum() {
        let least = 2f64.powi(-24);
        assert_eq!(F16.round(least * 0.5, Rounding::Nearest), 0.0);
        assert_eq!(F16.round(least * 0.75, Rounding::Nearest), least);
        assert_eq!(F16.round(least * 1.5, Rounding::Nearest), least * 2.0);
        assert_eq!(F16.round(1e-30, Rounding::Up), least);
    }

    #[test]
    fn the_bit_below_f64_is_not_lost() {
        // 1 + 2^-24 is a tie in f32; 2^-80 more makes it no tie, though f64 cannot hold it.
        let sum = sum_to_odd(1.0 + 2f64.powi(-24), 2f64.powi(-80));
        assert_eq!(F32.round(sum, Rounding::Nearest), 1.0 + 2f64.powi(-23));
        let sum = sum_to_odd(1.0 + 2f64.powi(-24), -(2f64.powi(-80)));
        assert_eq!(F32.round(sum, Rounding::Nearest), 1.0);
    }

    proptest! {
        #[test]
        fn nearest_f32_is_the_cast(value: f64) {
            let expected = value as f32;
            let got = F32.round(value, Rounding::Nearest) as f32;
            prop_assert!(got == expected || (got.is_nan() && expected.is_nan()));
        }

        #[test]
        fn fused_matches_the_processor(a: f32, b: f32, c: f32) {
            let got = F32.round(fused_to_odd(a.into(), b.into(), c.into()), Rounding::Nearest) as f32;
            let expected = a.mul_add(b, c);
            prop_assert!(got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()));
        }

        #[test]
        fn directed_modes_enclose_the_value(value in -1e6f64..1e6) {
            let (down, up) = (BF16.round(value, Rounding::Down), BF16.round(value, Rounding::Up));
            prop_assert!(down <= value && value <= up);
            prop_assert_eq!(BF16.round(value, Rounding::Zero), if value > 0.0 { down } else { up });
        }
    }
}
