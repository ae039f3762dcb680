//! Elementary functions in f32 that the compiler can vectorise, and reductions in fixed order.
//!
//! [`exp`], [`sigmoid`], [`tanh`] and [`erf`] are branch-free scalar code to be called from the
//! body of a [`vectorize!`] function. The slice functions below are such functions. The result of a
//! row depends on the row alone, not on its place or on the thread that computes it.
//! `docs/numerics.md` lists the errors in units in the last place, and tests over all of f32 check
//! them.
//!
//! For a softmax over `row`: `let max = row_max(row);`, `let sum = exp_sum(row, max);` (turns `row`
//! into `exp(row − max)` and returns their sum), then `1 / sum` or `max + sum.ln()`.

use tightrope_device::vectorize;

/// Number of independent partial sums of a reduction: 4 AVX2 registers, or 8 of NEON.
pub(crate) const LANES: usize = 32;

/// Splits `x = n·ln 2 + r`, `|r| ≤ ½ ln 2`; returns `(n, r)`. `|x|` must be below 2²¹.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    // Adding 1.5·2²³ rounds to an integer, which is then in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has trailing zeros, so that n times it is exact.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    (
        (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32),
        r,
    )
}

/// `exp(r) − 1` for `|r| ≤ ½ ln 2`: a minimax polynomial that gives `exp` a relative error of 2⁻²⁹.
#[inline(always)]
fn exp_m1_reduced(r: f32) -> f32 {
    let mut p = 1.381_446_7e-3f32;
    p = p.mul_add(r, 8.368_781e-3);
    p = p.mul_add(r, 4.166_839_3e-2);
    p = p.mul_add(r, 1.666_652e-1);
    p = p.mul_add(r, 0.499_999_94);
    (p * r).mul_add(r, r)
}

/// 2ⁿ for `−126 ≤ n ≤ 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// `eˣ`, subnormal results, infinities and NaN included.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these bounds the result is 0 or ∞ anyway. The comparisons let NaN pass through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (n, r) = reduce(x);
    // There are two factors, because 2ⁿ itself may be subnormal or infinite; only the last product
    // rounds.
    let half = n >> 1;
    (exp_m1_reduced(r) + 1.0) * power_of_two(half) * power_of_two(n - half)
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    // The side that does not overflow is used, so that small results keep their digits.
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// Hyperbolic tangent: `−u / (2 + u)` with `u = exp(−2|x|) − 1`, which does not cancel near 0.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let y = -2.0 * x.abs();
    // tanh is 1 in f32 from 9.02 on.
    let y = if y < -20.0 { -20.0 } else { y };
    let (n, r) = reduce(y);
    let scale = power_of_two(n);
    let u = exp_m1_reduced(r).mul_add(scale, scale - 1.0);
    (-u / (2.0 + u)).copysign(x)
}

/// Error function: an odd polynomial below 0.93, `1 − exp(−polynomial)` above.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let mut small = 8.316_775e-5f32;
    small = small.mul_add(s, -8.130_012e-4);
    small = small.mul_add(s, 5.199_907e-3);
    small = small.mul_add(s, -2.685_894e-2);
    small = small.mul_add(s, 1.128_368_7e-1);
    small = small.mul_add(s, -3.761_263_2e-1);
    small = small.mul_add(s, 1.283_791_7e-1);
    let small = small.mul_add(x, x);
    // erf is 1 in f32 from 3.92 on.
    let t4 = if t > 4.0 { 4.0 } else { t };
    let mut large = 1.125_834e-5f32;
    large = large.mul_add(t4, -3.230_742_6e-4);
    large = large.mul_add(t4, 3.643_557_7e-3);
    large = large.mul_add(t4, -2.376_438_5e-2);
    large = large.mul_add(t4, 1.062_395_7e-1);
    large = large.mul_add(t4, 6.351_497e-1);
    large = large.mul_add(t4, 1.128_648_9);
    let large = (1.0 - exp(-large * t4)).copysign(x);
    // NaN fails the comparison and passes through the polynomial.
    if t > 0.93 { large } else { small }
}

/// Adds the lanes in pairs: the order is fixed, and the error is the least.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

vectorize! {
    /// Largest element; NaN if there is one, −∞ for an empty row.
    pub(crate) fn row_max(row: &[f32]) -> f32 {
        #[inline(always)]
        fn larger(a: f32, b: f32) -> f32 {
            // The second choice keeps a NaN of `a`, and the comparison keeps a NaN of `b`.
            if b > a || b.is_nan() { b } else { a }
        }
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let chunks = row.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] = larger(lanes[lane], chunk[lane]);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            *lane = larger(*lane, value);
        }
        lanes.into_iter().fold(f32::NEG_INFINITY, larger)
    }

    /// Overwrites the row with `exp(row − max)` and returns the sum of the new values.
    pub(crate) fn exp_sum(row: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0f32; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                chunk[lane] = exp(chunk[lane] - max);
                lanes[lane] += chunk[lane];
            }
        }
        for (lane, value) in lanes.iter_mut().zip(chunks.into_remainder()) {
            *value = exp(*value - max);
            *lane += *value;
        }
        sum_lanes(lanes)
    }

    /// `row = softcap · tanh(row / softcap)`.
    pub(crate) fn softcap(row: &mut [f32], softcap: f32) {
        for value in row {
            *value = softcap * tanh(*value / softcap);
        }
    }
}

#[cfg(test)]
#[path = "math_tests.rs"]
mod tests;
