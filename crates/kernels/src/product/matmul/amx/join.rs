//! Adds the sums of a block to the result so far.

use super::split::{SIDE, low_bits};
use super::tile::Sums;
use crate::product::matmul::{Base, Memory, Term};
use std::{arch::x86_64::*, ops::Range};

/// `c = base + alpha · gate(sums)`.
pub(super) fn join(
    memory: Memory,
    term: &Term<'_>,
    base: Base<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
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
    let bias = match base {
        Base::Bias(bias) => Some(&bias[columns.clone()]),
        _ => None,
    };
    for (row, sums) in rows.zip(&sums.0) {
        let sums = &sums[..columns.len()];
        let c = memory.at(row, columns.start);
        if memory.column_stride == 1 {
            let base = match (base, bias) {
                (Base::Zero, _) => std::ptr::null(),
                (_, Some(bias)) => bias.as_ptr(),
                _ => c.cast_const(),
            };
            // SAFETY: the product checked that all elements lie inside the result, and only this
            // thread works on this tile; a bias has these columns.
            unsafe { add_row(c, base, factor, sums) };
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
                    _ => *c,
                };
                *c = factor.mul_add(sum, base);
            }
        }
    }
}

/// `c[j] = base[j] + factor · sums[j]`; a null base stands for zeros.
///
/// # Safety
/// The processor must have AVX-512, and `c` and `base` must have as many elements as `sums`.
#[target_feature(enable = "avx512f")]
unsafe fn add_row(c: *mut f32, base: *const f32, factor: f32, sums: &[f32]) {
    let factor = _mm512_set1_ps(factor);
    for (at, sums) in sums.chunks(SIDE).enumerate() {
        let mask = low_bits(sums.len());
        // SAFETY: the masks end with the elements.
        unsafe {
            let base = if base.is_null() {
                _mm512_setzero_ps()
            } else {
                _mm512_maskz_loadu_ps(mask, base.add(at * SIDE))
            };
            let sum = _mm512_maskz_loadu_ps(mask, sums.as_ptr());
            let value = _mm512_fmadd_ps(factor, sum, base);
            _mm512_mask_storeu_ps(c.add(at * SIDE), mask, value);
        }
    }
}
