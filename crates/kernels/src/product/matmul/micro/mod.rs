//! The innermost product: a tile of the result, held in registers.
//!
//! Every element is its own chain of fused multiply-adds over `p = 0, 1, …`, whatever the tile and the
//! instruction set, so edges and single rows have the same bits as the middle of a large product.

use std::sync::LazyLock;

/// Number of rows in a panel of `a`.
pub(crate) const ROWS: usize = 6;
/// Number of columns in a panel of `b`.
pub(crate) const COLUMNS: usize = 16;
/// Number of rows in the largest tile of any kernel.
pub(crate) const MOST_ROWS: usize = 2 * ROWS;
/// Number of columns in the largest tile of any kernel.
pub(crate) const MOST_COLUMNS: usize = 2 * COLUMNS;

/// Consecutive steps of a tile's sum.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) k: usize,
    /// Row `i` is row `i % 6` of panel `i / 6`, in which `(i, p)` is at `i · a_stride + p` by rows and
    /// at `p · a_stride + i` by columns.
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// Distance from one panel of `a` to the next.
    pub(crate) a_panel: usize,
    /// Column `j` is column `j % 16` of panel `j / 16`, in which `(p, j)` is at `p · b_stride + j`.
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    /// Distance from one panel of `b` to the next.
    pub(crate) b_panel: usize,
}

impl Steps {
    pub(crate) const NONE: Self = Self {
        k: 0,
        a: std::ptr::null(),
        a_stride: 0,
        a_panel: 0,
        b: std::ptr::null(),
        b_stride: 0,
        b_panel: 0,
    };
}

/// `c[i, j] = base[i, j] + alpha · Σ_p a[i, p] · b[p, j]`; `p` runs over the steps and then over
/// those of `more`, and `j` over one or two whole panels.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) steps: Steps,
    pub(crate) more: Steps,
    pub(crate) alpha: f32,
    /// Element `(i, j)` is at `i · base_stride + j`; null stands for zeros.
    pub(crate) base: *const f32,
    pub(crate) base_stride: usize,
    /// Element `(i, j)` is at `i · c_stride + j`.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Start of the consecutive lines that are prefetched for later tiles, valid or not.
    pub(crate) next: *const f32,
    /// Whether the rows of `a` below these are prefetched, valid or not.
    pub(crate) fetch_rows: bool,
}

/// Computes one tile. Safety: all elements that the strides of the call reach must be valid.
pub(crate) type Tile = unsafe fn(&Call);

/// Tile functions of one instruction set.
pub(crate) struct Kernel {
    /// Number of rows in its largest tile, one or two panels of `a`.
    pub(crate) rows: usize,
    /// Number of columns in its largest tile, one or two panels of `b`.
    pub(crate) columns: usize,
    /// Whether its elements are pairs of bf16, which cannot be multiplied as an f32.
    pub(crate) is_pairs: bool,
    /// Tiles for `a` stored by rows, indexed by panels of `b` and by rows, each minus one.
    by_rows: &'static [&'static [Tile]],
    /// The same for `a` stored by columns, as in packed panels.
    by_columns: &'static [&'static [Tile]],
}

impl Kernel {
    /// The tile for this number of rows (at least one) and panels of `b`.
    pub(crate) fn tile(&self, a_by_rows: bool, rows: usize, b_panels: usize) -> Tile {
        let tiles = if a_by_rows {
            self.by_rows
        } else {
            self.by_columns
        };
        tiles[b_panels - 1][rows - 1]
    }
}

/// Prefetches the cache line of this element.
#[inline(always)]
pub(crate) fn prefetch(element: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is only a hint, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(element.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = element;
}

/// Number of steps in one turn of the loop.
#[cfg(target_arch = "x86_64")]
const TOGETHER: usize = 4;

/// Returns the same number, but hides its value from the compiler: it then stays in a register,
/// where sums would otherwise be computed again and again.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn opaque(mut number: usize) -> usize {
    // SAFETY: there is no instruction.
    unsafe {
        std::arch::asm!("/* {} */", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
    }
    number
}

/// No load moves across this point: many loads at once would need more registers than there are.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn in_order() {
    // SAFETY: there is no instruction.
    unsafe { std::arch::asm!("", options(nostack, preserves_flags)) };
}

/// The best kernel for this processor.
pub(crate) static KERNEL: LazyLock<&'static Kernel> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    if tightrope_device::has_avx512() {
        return &avx512::KERNEL;
    } else if tightrope_device::has_avx2_fma() {
        return &avx2::KERNEL;
    }
    &portable::KERNEL
});

/// The kernel for pairs of bf16, for processors with AVX512-BF16.
#[cfg(target_arch = "x86_64")]
pub(crate) static PAIRS: &Kernel = &avx512_bf16::KERNEL;

/// Lists `tile::<ROWS, VECTORS, BY_ROWS>` for all of these rows.
macro_rules! tiles {
    ($vectors:literal, $by_rows:literal: $($rows:literal)*) => {
        &[$(tile::<$rows, $vectors, $by_rows>),*]
    };
}

/// Defines the tiles of an instruction set: [`Call`] with the intrinsics for vectors of a number of
/// lanes, the last of which adds a step. `VECTORS` vectors make the columns of a tile. One line is
/// prefetched per number of steps.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_tiles {
    ($features:literal, $vector:ident, $lanes:literal, $fetch:literal:
        $zero:ident, $set1:ident, $load:ident, $store:ident, $fmadd:ident, $step:ident) => {
        /// # Safety
        /// The processor must have the features, and every element in reach must be valid.
        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize, const VECTORS: usize, const BY_ROWS: bool>(call: &Call) {
            let mut sum = [[$zero(); VECTORS]; R];
            // The result is needed only after the sum, so it may come from far away. One row is
            // fetched every few steps: many at once would delay `a` and `b`.
            let fetch_result = |r: usize| {
                let c = call.c.wrapping_add(r * call.c_stride).cast_const();
                for line in 0..(VECTORS * $lanes).div_ceil(COLUMNS) {
                    prefetch(c.wrapping_add(line * COLUMNS));
                }
            };
            let mut now = call.steps;
            let groups = now.k.div_ceil($fetch);
            (groups..R).for_each(fetch_result);
            for group in 0..groups + call.more.k.div_ceil($fetch) {
                if group < R {
                    fetch_result(group);
                }
                _mm_prefetch::<_MM_HINT_T1>(call.next.wrapping_add(group * COLUMNS).cast());
                if BY_ROWS && call.fetch_rows {
                    // 8 steps use half a line of each row, so every other row is fetched.
                    let turns = COLUMNS.div_ceil($fetch);
                    for r in (group % turns..R).step_by(turns) {
                        let row = call.steps.a.wrapping_add((R + r) * call.steps.a_stride);
                        for p in (0..$fetch).step_by(COLUMNS) {
                            prefetch(row.wrapping_add(group * $fetch + p));
                        }
                    }
                }
                if group == groups {
                    now = call.more;
                }
                // SAFETY: the caller promises all rows and columns at every step.
                unsafe { accumulate::<R, VECTORS, BY_ROWS>(&mut sum, &mut now, $fetch) };
            }
            let alpha = $set1(call.alpha);
            for (r, sum) in sum.iter().enumerate() {
                for (v, &sum) in sum.iter().enumerate() {
                    // SAFETY: the caller promises `base` (unless null) and `c` for all rows and columns.
                    unsafe {
                        let base = if call.base.is_null() {
                            $zero()
                        } else {
                            $load(call.base.add(r * call.base_stride + v * $lanes))
                        };
                        let c = call.c.add(r * call.c_stride + v * $lanes);
                        $store(c, $fmadd(alpha, sum, base));
                    }
                }
            }
        }

        /// Adds the next steps, at most `count` of them.
        ///
        /// # Safety
        /// The processor must have the features, and the elements of these steps must be valid.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn accumulate<const R: usize, const VECTORS: usize, const BY_ROWS: bool>(
            sum: &mut [[$vector; VECTORS]; R],
            steps: &mut Steps,
            count: usize,
        ) {
            let step = if BY_ROWS { 1 } else { steps.a_stride };
            let count = count.min(steps.k);
            steps.k -= count;
            // Rows of a panel: their distances stay in registers.
            let rows: [usize; ROWS] = std::array::from_fn(|r| {
                if BY_ROWS {
                    opaque(r * steps.a_stride)
                } else {
                    r
                }
            });
            for _ in 0..count / TOGETHER {
                for p in 0..TOGETHER {
                    // SAFETY: the caller promises all rows and columns at every step.
                    unsafe { step_of(sum, steps, steps.a.add(p * step), &rows) };
                    steps.b = steps.b.wrapping_add(steps.b_stride);
                    in_order();
                }
                steps.a = steps.a.wrapping_add(TOGETHER * step);
            }
            for _ in 0..count % TOGETHER {
                // SAFETY: the caller promises all rows and columns at every step.
                unsafe { step_of(sum, steps, steps.a, &rows) };
                steps.a = steps.a.wrapping_add(step);
                steps.b = steps.b.wrapping_add(steps.b_stride);
            }
        }

        /// Adds one step of the sum: `sum[r] += a[r] · b` in all columns.
        ///
        /// # Safety
        /// The processor must have the features, and these elements must be valid.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn step_of<const R: usize, const VECTORS: usize>(
            sum: &mut [[$vector; VECTORS]; R],
            steps: &Steps,
            a: *const f32,
            rows: &[usize; ROWS],
        ) {
            // SAFETY: the caller promises all columns of `b` and one element of each row of `a`.
            unsafe {
                let mut right = [$zero(); VECTORS];
                for (v, right) in right.iter_mut().enumerate() {
                    let column = v * $lanes;
                    *right = $load(
                        steps
                            .b
                            .add(column / COLUMNS * steps.b_panel + column % COLUMNS),
                    );
                }
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = $set1(
                        *a.wrapping_add(r / ROWS * steps.a_panel)
                            .wrapping_add(rows[r % ROWS]),
                    );
                    for (sum, &right) in sum.iter_mut().zip(&right) {
                        *sum = $step(x, right, *sum);
                    }
                }
            }
        }
    };
}

/// 24 sums in two vectors of 12 rows: an element of a row is used twice, because the processor loads no
/// more vectors per cycle than it multiplies.
#[cfg(target_arch = "x86_64")]
macro_rules! wide {
    (is_pairs: $is_pairs:literal) => {
        Kernel {
            rows: MOST_ROWS,
            columns: MOST_COLUMNS,
            is_pairs: $is_pairs,
            by_rows: &[
                tiles!(1, true: 1 2 3 4 5 6 7 8 9 10 11 12),
                tiles!(2, true: 1 2 3 4 5 6 7 8 9 10 11 12),
            ],
            by_columns: &[
                tiles!(1, false: 1 2 3 4 5 6 7 8 9 10 11 12),
                tiles!(2, false: 1 2 3 4 5 6 7 8 9 10 11 12),
            ],
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{
        COLUMNS, Call, Kernel, MOST_COLUMNS, MOST_ROWS, ROWS, Steps, TOGETHER, in_order, opaque,
        prefetch,
    };
    use std::arch::x86_64::*;

    pub(super) static KERNEL: Kernel = wide!(is_pairs: false);

    vector_tiles!("avx512f", __m512, 16, 8:
        _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps,
        _mm512_fmadd_ps);
}

/// Steps of two: an element of `a` and of `b` is a pair of bf16, the even step in its low half.
#[cfg(target_arch = "x86_64")]
mod avx512_bf16 {
    use super::{
        COLUMNS, Call, Kernel, MOST_COLUMNS, MOST_ROWS, ROWS, Steps, TOGETHER, in_order, opaque,
        prefetch,
    };
    use std::arch::x86_64::*;

    pub(super) static KERNEL: Kernel = wide!(is_pairs: true);

    /// `sum + a·b`, both products of each lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn multiply_pairs(a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: all types have 64 bytes.
        let [a, b] = unsafe { std::mem::transmute::<[__m512; 2], [__m512bh; 2]>([a, b]) };
        _mm512_dpbf16_ps(sum, a, b)
    }

    vector_tiles!("avx512f,avx512bf16", __m512, 16, 8:
        _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps,
        multiply_pairs);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{COLUMNS, Call, Kernel, ROWS, Steps, TOGETHER, in_order, opaque, prefetch};
    use std::arch::x86_64::*;

    /// Two vectors make a panel.
    pub(super) static KERNEL: Kernel = Kernel {
        rows: ROWS,
        columns: COLUMNS,
        is_pairs: false,
        by_rows: &[tiles!(2, true: 1 2 3 4 5 6)],
        by_columns: &[tiles!(2, false: 1 2 3 4 5 6)],
    };

    vector_tiles!("avx2,fma", __m256, 8, 32:
        _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps,
        _mm256_fmadd_ps);
}

/// The kernel for processors without a special one; compilers vectorise it.
mod portable {
    use super::{COLUMNS, Call, Kernel, ROWS};

    pub(super) static KERNEL: Kernel = Kernel {
        rows: ROWS,
        columns: COLUMNS,
        is_pairs: false,
        by_rows: &[tiles!(1, true: 1 2 3 4 5 6)],
        by_columns: &[tiles!(1, false: 1 2 3 4 5 6)],
    };

    /// Uses a fused operation if that is one instruction.
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }

    /// # Safety
    /// Every element that the call reaches must be valid.
    unsafe fn tile<const R: usize, const VECTORS: usize, const BY_ROWS: bool>(call: &Call) {
        const { assert!(R <= ROWS && VECTORS == 1) };
        let mut sum = [[0f32; COLUMNS]; R];
        for steps in [&call.steps, &call.more] {
            let (row, step) = if BY_ROWS {
                (steps.a_stride, 1)
            } else {
                (1, steps.a_stride)
            };
            for p in 0..steps.k {
                // SAFETY: the caller promises columns `0..16` at every step.
                let b = unsafe { &*steps.b.add(p * steps.b_stride).cast::<[f32; COLUMNS]>() };
                for (r, sum) in sum.iter_mut().enumerate() {
                    // SAFETY: the caller promises rows `0..R` at every step.
                    let x = unsafe { *steps.a.add(r * row + p * step) };
                    for (sum, &b) in sum.iter_mut().zip(b) {
                        *sum = multiply_add(x, b, *sum);
                    }
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
mod tests;
