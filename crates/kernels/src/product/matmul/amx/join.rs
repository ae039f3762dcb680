//! Adds the sums of a block to the result so far.

use super::split::{SIDE, low_bits};
use super::tile::{BLOCK, Sums};
use crate::{
    cpu::float::Activation,
    product::matmul::{
        Base, Term,
        output::{Memory, Target},
    },
};
use half::bf16;
use std::{arch::x86_64::*, ops::Range};

/// `c = base + alpha · gate(sums)`.
pub(super) fn join(
    target: Target,
    term: &Term<'_>,
    base: Base<'_>,
    (rows, columns): (Range<usize>, Range<usize>),
    sums: &mut Sums,
) {
    let Term { alpha, gate, .. } = *term;
    let mut factor = alpha;
    if let Some(gate) = gate {
        for (row, sums) in rows.clone().zip(&mut sums.0) {
            let sums = &mut sums[..columns.len()];
            sums.iter_mut().for_each(|sum| *sum *= alpha);
            gate.apply(row, columns.clone(), sums);
        }
        factor = 1.0;
    }
    match target {
        Target::F32(c) => add(c, base, factor, (rows, columns), sums),
        Target::Bf16(c) => add(c, base, factor, (rows, columns), sums),
    }
}

/// `c = base + factor · sums`, rounded.
fn add<T: Number>(
    memory: Memory<T>,
    base: Base<'_>,
    factor: f32,
    (rows, columns): (Range<usize>, Range<usize>),
    sums: &Sums,
) {
    let bias = match base {
        Base::Bias(bias) => Some(&bias[columns.clone()]),
        _ => None,
    };
    for (row, sums) in rows.zip(&sums.0) {
        let sums: &[f32; BLOCK] = sums;
        let sums = &sums[..columns.len()];
        let c = memory.at(row, columns.start);
        if memory.column_stride == 1 {
            // SAFETY: the product checked that all elements lie inside the result, and only this
            // thread works on this tile; a bias has these columns.
            unsafe {
                match (base, bias) {
                    (Base::Zero, _) => add_row::<T, f32>(c, std::ptr::null(), factor, sums),
                    (_, Some(bias)) => add_row(c, bias.as_ptr(), factor, sums),
                    _ => add_row(c, c.cast_const(), factor, sums),
                }
            };
            continue;
        }
        for (j, &sum) in sums.iter().enumerate() {
            let c = c.wrapping_add(j * memory.column_stride);
            // SAFETY: the product checked that all elements lie inside the result, and only this
            // thread works on this tile.
            unsafe {
                let base = match (base, bias) {
                    (Base::Zero, _) => 0.0,
                    (_, Some(bias)) => bias[j],
                    _ => (*c).get(),
                };
                *c = T::rounded(factor.mul_add(sum, base));
            }
        }
    }
}

/// `c[j] = base[j] + factor · sums[j]`, rounded; a null base stands for zeros.
///
/// # Safety
/// The processor must have AVX-512 with bf16, and `c` and `base` must have as many elements as
/// `sums`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn add_row<T: Number, B: Number>(c: *mut T, base: *const B, factor: f32, sums: &[f32]) {
    let factor = _mm512_set1_ps(factor);
    for (at, sums) in sums.chunks(SIDE).enumerate() {
        let mask = low_bits(sums.len());
        // SAFETY: the masks end with the elements.
        unsafe {
            let base = if base.is_null() {
                _mm512_setzero_ps()
            } else {
                B::load(base.wrapping_add(at * SIDE), mask)
            };
            let sum = _mm512_maskz_loadu_ps(mask, sums.as_ptr());
            let value = _mm512_fmadd_ps(factor, sum, base);
            T::store(c.wrapping_add(at * SIDE), mask, value);
        }
    }
}

/// A type of results, 16 numbers at a time.
trait Number: Activation {
    /// # Safety
    /// The processor must have AVX-512 with bf16, and the numbers of the mask must be valid.
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512;
    /// # Safety
    /// The processor must have AVX-512 with bf16, and the numbers of the mask must be valid.
    unsafe fn store(to: *mut Self, mask: __mmask16, values: __m512);
}

impl Number for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller promises the numbers.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn store(to: *mut Self, mask: __mmask16, values: __m512) {
        // SAFETY: the caller promises the numbers.
        unsafe { _mm512_mask_storeu_ps(to, mask, values) };
    }
}

impl Number for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller promises the numbers.
        let halves = unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn store(to: *mut Self, mask: __mmask16, values: __m512) {
        let rounded = _mm512_cvtneps_pbh(values);
        // SAFETY: both types have 32 bytes, and the caller promises the numbers.
        unsafe {
            let rounded = std::mem::transmute::<__m256bh, __m256i>(rounded);
            _mm256_mask_storeu_epi16(to.cast(), mask, rounded);
        }
    }
}
