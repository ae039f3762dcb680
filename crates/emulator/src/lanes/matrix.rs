//! The product of small matrices behind `mma`.
use super::simd::dispatched_fn;

/// 16×16 or narrower matrix.
pub(crate) type MatrixA = [[f32; 16]; 16];
/// 16×8 matrix, of which the first k rows are used.
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
    /// Computes `a · b + c` over the first `k` columns: products are exact, summed in `f64` from
    /// first to last, and `c` is added at the end. Hardware aligns and truncates differently.
    pub(crate) fn multiply_matrices(a: &MatrixA, b: &MatrixB, c: &MatrixB, k: usize) -> [[f64; 8]; 16] = rows
}
