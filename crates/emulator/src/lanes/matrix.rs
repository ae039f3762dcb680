//! The product of small matrices behind `mma`.
use super::simd::dispatched_fn;

/// 16×16 or narrower.
pub(crate) type MatrixA = [[f32; 16]; 16];
/// 16×8, of which the first k rows count.
pub(crate) type MatrixB = [[f32; 8]; 16];

#[inline(always)]
fn rows(a: &MatrixA, b: &MatrixB, c: &MatrixB, k: usize) -> [[f64; 8]; 16] {
    let mut out = [[0f64; 8]; 16];
    for m in 0..16 {
        let mut sums = [0f64; 8];
        for i in 0..k {
            let factor = f64::from(a[m][i]);
            for n in 0..8 {
                sums[n] += factor * f64::from(b[i][n]);
            }
        }
        for n in 0..8 {
            out[m][n] = sums[n] + f64::from(c[m][n]);
        }
    }
    out
}

dispatched_fn! {
    /// `a · b + c` over the first `k` columns: exact products, summed in `f64` from the first to
    /// the last, `c` added at the end. Hardware aligns and cuts off in ways of its own.
    pub(crate) fn multiply_matrices(a: &MatrixA, b: &MatrixB, c: &MatrixB, k: usize) -> [[f64; 8]; 16] = rows
}
