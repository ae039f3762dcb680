//! The innermost product: up to 6 × 16 elements of the result, held in registers.
//!
//! Every element is its own chain of fused multiply-adds over `p = 0, 1, …`, whatever the number of
//! rows, so edges and single rows have the same bits as the middle of a large product.

use std::sync::LazyLock;

/// Rows of a full tile.
pub(crate) const ROWS: usize = 6;
/// Columns of every tile.
pub(crate) const COLUMNS: usize = 16;

/// `c[i, j] = base[i, j] + alpha · Σ_p a[i, p] · b[p, j]` for `j` in `0..16`.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) k: usize,
    /// By rows: `(i, p)` at `i · a_stride + p`. By columns: at `p · a_stride + i`.
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// `(p, j)` at `p · b_stride + j`.
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    pub(crate) alpha: f32,
    /// `(i, j)` at `i · base_stride + j`; null stands for zeros.
    pub(crate) base: *const f32,
    pub(crate) base_stride: usize,
    /// `(i, j)` at `i · c_stride + j`.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
}

/// Computes one tile. Its safety: all elements that the strides of the call name are valid.
pub(crate) type Tile = unsafe fn(&Call);

/// Tiles of 1 to 6 rows for one instruction set, the number of rows less one as index.
pub(crate) struct Kernel {
    /// `a` is stored by rows.
    pub(crate) by_rows: [Tile; ROWS],
    /// `a` is stored by columns, as in packed panels.
    pub(crate) by_columns: [Tile; ROWS],
}

/// The best kernel for this processor.
pub(crate) static KERNEL: LazyLock<&'static Kernel> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    if tightrope_device::has_avx2_fma() {
        return &avx2::KERNEL;
    }
    &portable::KERNEL
});

macro_rules! kernel {
    ($tile:ident) => {
        pub(super) static KERNEL: Kernel = Kernel {
            by_rows: [
                $tile::<1, true>,
                $tile::<2, true>,
                $tile::<3, true>,
                $tile::<4, true>,
                $tile::<5, true>,
                $tile::<6, true>,
            ],
            by_columns: [
                $tile::<1, false>,
                $tile::<2, false>,
                $tile::<3, false>,
                $tile::<4, false>,
                $tile::<5, false>,
                $tile::<6, false>,
            ],
        };
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Call, Kernel};
    use std::arch::x86_64::*;

    kernel!(tile);

    /// # Safety
    /// The processor has AVX2 and FMA, and every element that the call names is valid.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const R: usize, const BY_ROWS: bool>(call: &Call) {
        let mut sum = [[_mm256_setzero_ps(); 2]; R];
        let (mut a, mut b) = (call.a, call.b);
        let (row, step) = if BY_ROWS {
            (call.a_stride, 1)
        } else {
            (1, call.a_stride)
        };
        for r in 0..R {
            // The result is needed only after the sum: time enough to fetch it from afar.
            let c = call.c.wrapping_add(r * call.c_stride).cast_const().cast();
            _mm_prefetch::<_MM_HINT_T0>(c);
        }
        // Four steps at a time, so that the addresses of the rows are computed once for them.
        for _ in 0..call.k / 4 {
            for p in 0..4 {
                // SAFETY: the caller promises rows `0..R` and columns `0..16` at every step of `k`.
                unsafe { accumulate(&mut sum, a.add(p * step), row, b) };
                b = b.wrapping_add(call.b_stride);
            }
            a = a.wrapping_add(4 * step);
        }
        for _ in 0..call.k % 4 {
            // SAFETY: as above.
            unsafe { accumulate(&mut sum, a, row, b) };
            a = a.wrapping_add(step);
            b = b.wrapping_add(call.b_stride);
        }
        let alpha = _mm256_set1_ps(call.alpha);
        for (r, sum) in sum.iter().enumerate() {
            for (half, &sum) in sum.iter().enumerate() {
                // SAFETY: the caller promises `base` (unless null) and `c` for rows `0..R`.
                unsafe {
                    let base = if call.base.is_null() {
                        _mm256_setzero_ps()
                    } else {
                        _mm256_loadu_ps(call.base.add(r * call.base_stride + 8 * half))
                    };
                    let c = call.c.add(r * call.c_stride + 8 * half);
                    _mm256_storeu_ps(c, _mm256_fmadd_ps(alpha, sum, base));
                }
            }
        }
    }

    /// One step of the sum: `sum[r] += a[r · row] · b[0..16]`.
    ///
    /// # Safety
    /// These elements are valid.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn accumulate<const R: usize>(
        sum: &mut [[__m256; 2]; R],
        a: *const f32,
        row: usize,
        b: *const f32,
    ) {
        // SAFETY: the caller promises 16 elements of `b` and one of each row of `a`.
        unsafe {
            let (left, right) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*a.add(r * row));
                sum[0] = _mm256_fmadd_ps(x, left, sum[0]);
                sum[1] = _mm256_fmadd_ps(x, right, sum[1]);
            }
        }
    }
}

/// For processors without a kernel of their own; compilers vectorise it.
mod portable {
    use super::{COLUMNS, Call, Kernel};

    kernel!(tile);

    /// Fused where that is one instruction.
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }

    /// # Safety
    /// Every element that the call names is valid.
    unsafe fn tile<const R: usize, const BY_ROWS: bool>(call: &Call) {
        let mut sum = [[0f32; COLUMNS]; R];
        for p in 0..call.k {
            // SAFETY: the caller promises columns `0..16` at every step of `k`.
            let b = unsafe { &*call.b.add(p * call.b_stride).cast::<[f32; COLUMNS]>() };
            for (r, sum) in sum.iter_mut().enumerate() {
                let (row, step) = if BY_ROWS {
                    (call.a_stride, 1)
                } else {
                    (1, call.a_stride)
                };
                // SAFETY: the caller promises rows `0..R` at every step of `k`.
                let x = unsafe { *call.a.add(r * row + p * step) };
                for (sum, &b) in sum.iter_mut().zip(b) {
                    *sum = multiply_add(x, b, *sum);
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (j, &sum) in sum.iter().enumerate() {
                // SAFETY: the caller promises `base` (unless null) and `c` for rows `0..R`.
                unsafe {
                    let base = if call.base.is_null() {
                        0.0
                    } else {
                        *call.base.add(r * call.base_stride + j)
                    };
                    *call.c.add(r * call.c_stride + j) = multiply_add(call.alpha, sum, base);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_testkit::{Random, assert_close};

    #[test]
    fn every_kernel_matches_at_every_number_of_rows() {
        let mut random = Random::new(5);
        for kernel in [*KERNEL, &portable::KERNEL] {
            for rows in 1..=ROWS {
                for k in [0, 1, 2, 17, 256] {
                    let a = random.normal(rows * k, 1.0);
                    let transposed: Vec<f32> = (0..rows * k)
                        .map(|at| a[at % rows * k + at / rows])
                        .collect();
                    let b = random.normal(k * 20, 1.0);
                    let base = random.normal(COLUMNS, 1.0);
                    let mut results = [[0f32; ROWS * COLUMNS]; 2];
                    for (by_rows, c) in [true, false].into_iter().zip(&mut results) {
                        let (tiles, a, a_stride) = if by_rows {
                            (&kernel.by_rows, &a, k)
                        } else {
                            (&kernel.by_columns, &transposed, rows)
                        };
                        let call = Call {
                            k,
                            a: a.as_ptr(),
                            a_stride,
                            b: b.as_ptr(),
                            b_stride: 20,
                            alpha: 0.5,
                            base: base.as_ptr(),
                            base_stride: 0,
                            c: c.as_mut_ptr(),
                            c_stride: COLUMNS,
                        };
                        // SAFETY: `a` is rows × k, `b` k × 20, `base` one row and `c` six.
                        unsafe { tiles[rows - 1](&call) };
                    }
                    assert_eq!(results[0], results[1]);
                    let expected: Vec<f64> = (0..rows * COLUMNS)
                        .map(|at| {
                            let (i, j) = (at / COLUMNS, at % COLUMNS);
                            let product = |p| f64::from(a[i * k + p]) * f64::from(b[p * 20 + j]);
                            f64::from(base[j]) + 0.5 * (0..k).map(product).sum::<f64>()
                        })
                        .collect();
                    assert_close("c", &results[0][..rows * COLUMNS], &expected, 2e-5, 2e-6);
                }
            }
        }
    }
}
