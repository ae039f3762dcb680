//! Tests the accuracy of the elementary functions over all of f32, and of the reductions.

use super::*;
use tightrope_testkit::Random;

/// The stride is a prime, so that all exponents meet all kinds of mantissas: it takes 1.4 million
/// of the 2³² floats.
const STRIDE: usize = 3_001;

/// Distance of adjacent floats at `|exact|`, subnormal numbers included.
fn ulp(exact: f64) -> f64 {
    let exponent = (exact.abs().max(f64::from(f32::MIN_POSITIVE)).to_bits() >> 52) as i32 - 1023;
    2f64.powi(exponent.min(127) - 23)
}

/// Panics unless `f` is within `bound` ulp of `exact` for floats of every exponent and both signs;
/// an infinite result must be an exact result that rounds to infinity. Returns the largest error.
fn measure(name: &str, f: fn(f32) -> f32, exact: impl Fn(f64) -> f64, bound: f64) -> f64 {
    let mut largest = 0f64;
    // Takes every float of a stride, and all floats around the ends of the reduced ranges.
    let strided = (0..=u32::MAX).step_by(STRIDE);
    let near = [
        0.0f32, 0.35, 0.93, 1.0, 4.0, 87.34, 88.72284, 103.97208, 20.0, 9.02,
    ];
    let near = near.into_iter().flat_map(|x| {
        (x.to_bits().saturating_sub(2_000)..x.to_bits() + 2_000).flat_map(|b| [b, b | 1 << 31])
    });
    for x in strided
        .chain(near)
        .map(f32::from_bits)
        .filter(|x| !x.is_nan())
    {
        let (got, want) = (f(x), exact(f64::from(x)));
        let error = if want.abs() >= f64::from(f32::MAX) + ulp(f64::from(f32::MAX)) / 2.0 {
            if f64::from(got) == want.signum() * f64::INFINITY {
                0.0
            } else {
                f64::NAN
            }
        } else {
            (f64::from(got) - want).abs() / ulp(want)
        };
        let close = error <= bound;
        assert!(
            close,
            "{name}({x:e}): got {got:e}, exact {want:e}, {error} ulp"
        );
        largest = largest.max(error);
    }
    println!("{name}: {largest:.3} ulp");
    assert!(f(f32::NAN).is_nan() && f(-f32::NAN).is_nan(), "{name}(NaN)");
    largest
}

#[test]
fn exp_is_accurate_everywhere() {
    measure("exp", exp, f64::exp, 1.0);
}

#[test]
fn sigmoid_is_accurate_everywhere() {
    measure(
        "sigmoid",
        sigmoid,
        |x| {
            if x < 0.0 {
                x.exp() / (1.0 + x.exp())
            } else {
                1.0 / (1.0 + (-x).exp())
            }
        },
        2.5,
    );
}

#[test]
fn tanh_is_accurate_everywhere() {
    measure("tanh", tanh, f64::tanh, 2.5);
}

#[test]
fn erf_is_accurate_everywhere() {
    measure("erf", erf, tightrope_testkit::erf, 1.5);
}

#[test]
fn odd_functions_keep_the_sign_of_zero() {
    for f in [tanh, erf] {
        assert!(f(-0.0).is_sign_negative() && f(-0.0) == 0.0 && f(0.0).is_sign_positive());
    }
}

#[test]
fn the_softmax_helpers_agree_with_f64_at_every_length() {
    let mut random = Random::new(7);
    for length in [0, 1, 31, 32, 33, 63, 64, 65, 1000] {
        let row = random.normal(length, 4.0);
        let max = row_max(&row);
        assert_eq!(max, row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let mut powers = row.clone();
        let sum = exp_sum(&mut powers, max);
        let exact: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        // Each of 32 lanes has at most 32 additions, and all terms are positive.
        let close = (f64::from(sum) - exact).abs() <= 40.0 * f64::from(f32::EPSILON) * exact;
        assert!(close, "{sum} {exact}");
        for (&power, &x) in powers.iter().zip(&row) {
            assert_eq!(power, exp(x - max), "the vector form is the scalar form");
        }
    }
}

#[test]
fn a_nan_anywhere_in_a_row_reaches_maximum_and_sum() {
    for length in [1, 33, 70] {
        for place in 0..length {
            let mut row = vec![1f32; length];
            row[place] = f32::NAN;
            assert!(row_max(&row).is_nan());
            assert!(exp_sum(&mut row, 1.0).is_nan());
        }
    }
}

#[test]
fn softcap_is_bounded_and_odd() {
    let mut row = [
        0.0,
        1e-3,
        -1e-3,
        50.0,
        -50.0,
        1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    softcap(&mut row, 30.0);
    assert_eq!(row[0], 0.0);
    assert_eq!((row[1], row[3]), (-row[2], -row[4]));
    assert_eq!((row[5], row[6], row[7]), (30.0, 30.0, -30.0));
    let mut row = [f32::NAN];
    softcap(&mut row, 30.0);
    assert!(row[0].is_nan());
}
