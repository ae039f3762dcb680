//! Rounds operands to bf16, in the order in which tiles read them; stored bf16 is copied.

use super::split::{
    Aligned, CHUNK, PLANE, Panels, SIDE, STEPS, halves, low_bits, pairs, transpose,
};
use crate::product::matmul::{Operand, Rows, micro::prefetch};
use half::bf16;
use std::{arch::x86_64::*, ops::Range};

/// Number of panels whose columns are read together, so that long pieces of the rows are read.
const TOGETHER: usize = CHUNK / SIDE;

/// Writes `factor` times the elements `(first + i, p)`, with `i < count` and `p` in `steps`, rounded
/// to bf16; zeros fill up panels and groups.
///
/// Each group has one tile. By rows, the order is `i` and then pairs of steps `(2p, 2p + 1)`;
/// otherwise it is pairs of steps and then `i`.
///
/// # Safety
/// The processor must have AVX-512 with bf16.
pub(super) unsafe fn pack<const BY_ROWS: bool>(
    operand: Operand<'_>,
    factor: f32,
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    let stored = operand.rows().halves().filter(|_| factor == 1.0);
    // SAFETY: the caller promises the features.
    unsafe {
        match (operand, stored) {
            (Operand::Rows(_), Some(stored)) => {
                copy_rows::<BY_ROWS>(stored, (first, count), steps, panels);
            }
            (Operand::Rows(rows), None) => {
                from_rows::<BY_ROWS>(rows, factor, (first, count), steps, panels);
            }
            (Operand::Columns(_), Some(stored)) => {
                copy_columns::<BY_ROWS>(stored, (first, count), steps, panels);
            }
            (Operand::Columns(rows), None) => {
                from_columns::<BY_ROWS>(rows, factor, (first, count), steps, panels);
            }
        }
    }
}

/// Packs rows of bf16 that hold all steps of one `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn copy_rows<const BY_ROWS: bool>(
    (data, stride): (&[bf16], usize),
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    for panel in 0..count.div_ceil(SIDE) {
        let first = first + panel * SIDE;
        let count = SIDE.min(count - panel * SIDE);
        for (group, start) in steps.clone().step_by(STEPS).enumerate() {
            let here = STEPS.min(steps.end - start);
            let mask = u32::MAX >> (STEPS - here);
            write::<BY_ROWS, true>(panels.group::<1>(panel, group), |i| {
                if i >= count {
                    return _mm512_setzero_si512();
                }
                let row = &data[(first + i) * stride + start..][..here];
                // Processors do not predict that the next steps of many rows are read.
                prefetch(row.as_ptr().wrapping_add(4 * STEPS).cast());
                // SAFETY: the mask ends with the row.
                unsafe { _mm512_maskz_loadu_epi16(mask, row.as_ptr().cast()) }
            });
        }
    }
}

/// Packs rows that hold all steps of one `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn from_rows<const BY_ROWS: bool>(
    rows: &dyn Rows,
    factor: f32,
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    let mut scratch = [[0f32; CHUNK]; SIDE];
    let nothing = [0f32; CHUNK];
    let factor = _mm512_set1_ps(factor);
    for panel in 0..count.div_ceil(SIDE) {
        let first = first + panel * SIDE;
        let count = SIDE.min(count - panel * SIDE);
        for done in (0..steps.len()).step_by(CHUNK) {
            let (start, len) = (steps.start + done, CHUNK.min(steps.len() - done));
            let mut sources = [&nothing[..len]; SIDE];
            for (i, (source, scratch)) in
                sources.iter_mut().zip(&mut scratch).enumerate().take(count)
            {
                *source = rows.row(first + i, start..start + len, scratch);
            }
            for at in (0..len).step_by(STEPS) {
                let here = STEPS.min(len - at);
                let masks = [low_bits(here), low_bits(here.saturating_sub(SIDE))];
                let group = panels.group::<1>(panel, (done + at) / STEPS);
                write::<BY_ROWS, true>(group, |i| {
                    let source = sources[i].as_ptr().wrapping_add(at);
                    prefetch(source.wrapping_add(CHUNK));
                    prefetch(source.wrapping_add(CHUNK + SIDE));
                    // SAFETY: `at + here ≤ len`, the length of all sources; the masks end there.
                    let [low, high] = unsafe {
                        [
                            _mm512_maskz_loadu_ps(masks[0], source),
                            _mm512_maskz_loadu_ps(masks[1], source.wrapping_add(SIDE)),
                        ]
                    };
                    halves(_mm512_mul_ps(factor, low), _mm512_mul_ps(factor, high))
                });
            }
        }
    }
}

/// Packs rows of bf16 that hold one step of all `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn copy_columns<const BY_ROWS: bool>(
    (data, stride): (&[bf16], usize),
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    for from in (0..count.div_ceil(SIDE)).step_by(TOGETHER) {
        let some = from..count.div_ceil(SIDE).min(from + TOGETHER);
        for (group, start) in steps.clone().step_by(STEPS).enumerate() {
            let here = STEPS.min(steps.end - start);
            for panel in some.clone() {
                let column = first + panel * SIDE;
                let width = SIDE.min(count - panel * SIDE);
                let load = |step: usize| {
                    if step >= here {
                        return _mm512_setzero_si512();
                    }
                    let row = &data[(start + step) * stride + column..][..width];
                    // Processors do not predict that the next rows are far away.
                    prefetch(row.as_ptr().wrapping_add(STEPS * stride).cast());
                    // SAFETY: the mask ends with the row.
                    let row =
                        unsafe { _mm256_maskz_loadu_epi16(low_bits(width), row.as_ptr().cast()) };
                    _mm512_cvtepu16_epi32(row)
                };
                write::<BY_ROWS, false>(panels.group::<1>(panel, group), |pair| {
                    let (even, odd) = (load(2 * pair), load(2 * pair + 1));
                    _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd))
                });
            }
        }
    }
}

/// Packs rows that hold one step of all `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn from_columns<const BY_ROWS: bool>(
    rows: &dyn Rows,
    factor: f32,
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    let plain = rows.plain();
    let mut scratch = [[0f32; CHUNK]; STEPS];
    let factor = _mm512_set1_ps(factor);
    for from in (0..count).step_by(CHUNK) {
        let len = CHUNK.min(count - from);
        let columns = first + from..first + from + len;
        for (group, start) in steps.clone().step_by(STEPS).enumerate() {
            let here = STEPS.min(steps.end - start);
            let mut sources = [&[][..]; STEPS];
            for (p, (source, scratch)) in
                sources.iter_mut().zip(&mut scratch).enumerate().take(here)
            {
                *source = match plain {
                    Some((data, stride)) => {
                        &data[(start + p) * stride..][columns.start..columns.end]
                    }
                    None => rows.row(start + p, columns.clone(), scratch),
                };
            }
            for panel in 0..len.div_ceil(SIDE) {
                let mask = low_bits(len - panel * SIDE);
                let load = |step: usize| {
                    if step >= here {
                        return _mm512_setzero_ps();
                    }
                    let source = sources[step].as_ptr().wrapping_add(panel * SIDE);
                    if let Some((_, stride)) = plain {
                        // Processors do not predict that the next rows are far away.
                        prefetch(source.wrapping_add(STEPS * stride));
                    }
                    // SAFETY: the mask ends with the source.
                    _mm512_mul_ps(factor, unsafe { _mm512_maskz_loadu_ps(mask, source) })
                };
                let group = panels.group::<1>(from / CHUNK * TOGETHER + panel, group);
                write::<BY_ROWS, false>(group, |pair| pairs(load(2 * pair), load(2 * pair + 1)));
            }
        }
    }
}

/// Writes the tile of a group. `load(r)` returns 32 numbers: by rows, the steps of row `r`;
/// otherwise pair `r` of the steps of all rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn write<const BY_ROWS: bool, const FROM_ROWS: bool>(
    [group]: &mut [[f32; PLANE]; 1],
    load: impl Fn(usize) -> __m512i,
) {
    let mut other = Aligned([0.0; PLANE]);
    let target = if BY_ROWS == FROM_ROWS {
        &mut *group
    } else {
        &mut other.0
    };
    for (r, to) in target.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
        // SAFETY: there is room for 16 elements.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), load(r)) };
    }
    if BY_ROWS != FROM_ROWS {
        transpose(&other.0, group);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Matrix;
    use super::*;
    use crate::cpu::float::Float;
    use tightrope_device::Cpu;
    use tightrope_testkit::Random;

    fn check<const BY_ROWS: bool, T: Float>(data: &[T], factor: f32) {
        let matrix = Matrix::new(data, 90);
        for from_rows in [true, false] {
            for (first, count, steps) in [
                (0, 16usize, 0..32),
                (3, 1, 2..3),
                (5, 41, 1..90),
                (1, 70, 7..55),
            ] {
                let stride = steps.len().div_ceil(STEPS) * PLANE;
                let mut packed = vec![f32::NAN; count.div_ceil(SIDE) * stride];
                let operand = match from_rows {
                    true => Operand::Rows(&matrix),
                    false => Operand::Columns(&matrix),
                };
                let panels = &mut Panels {
                    data: &mut packed,
                    stride,
                };
                // SAFETY: the caller has checked that there are tiles.
                unsafe { pack::<BY_ROWS>(operand, factor, (first, count), steps.clone(), panels) };
                for i in 0..count.next_multiple_of(SIDE) {
                    for p in 0..steps.len().next_multiple_of(STEPS) {
                        let (row, column) = (first + i, steps.start + p);
                        let stored = match (i < count && p < steps.len(), from_rows) {
                            (false, _) => 0.0,
                            (true, true) => data[row * 90 + column].get(),
                            (true, false) => data[column * 90 + row].get(),
                        };
                        let (r, pair) = (i % SIDE, p % STEPS / 2);
                        let at = if BY_ROWS {
                            r * SIDE + pair
                        } else {
                            pair * SIDE + r
                        };
                        let bits = packed[i / SIDE * stride + p / STEPS * PLANE + at].to_bits();
                        let got = bf16::from_bits((bits >> (p % 2 * 16)) as u16);
                        let expected = bf16::from_f32(factor * stored);
                        assert_eq!(got.to_f32(), expected.to_f32(), "{row} {column}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_element_is_rounded_in_its_place() {
        if !Cpu::new(1).unwrap().has_amx() {
            return;
        }
        let random = Random::new(3).normal(90 * 90, 1.0);
        let halves: Vec<bf16> = random.iter().map(|&x| bf16::from_f32(x)).collect();
        for factor in [1.0, -2.0] {
            check::<true, f32>(&random, factor);
            check::<false, f32>(&random, factor);
            check::<true, bf16>(&halves, factor);
            check::<false, bf16>(&halves, factor);
        }
    }
}
