//! Splits f32 into three bf16, `x = x₀ + x₁ + x₂`, in the order in which tiles read them.
//!
//! Each part is the bf16 nearest to the remainder of the parts before it. The third is exact,
//! because 24 bits are three times eight. (A part that would be smaller than 2⁻¹²⁶ is zero: numbers
//! below 2⁻¹¹⁰ lose digits.)

use crate::product::matmul::{Operand, Rows, micro::prefetch};
use std::{arch::x86_64::*, ops::Range};

/// Number of rows, of pairs of steps and of columns in a tile.
pub(super) const SIDE: usize = 16;
/// Number of steps of the sum in one tile.
pub(super) const STEPS: usize = 32;
/// Size of a tile in elements of f32.
pub(super) const PLANE: usize = SIDE * SIDE;
/// Size of the three tiles of 16 rows or columns and 32 steps.
pub(super) const GROUP: usize = PARTS * PLANE;
/// Number of parts of an f32.
pub(super) const PARTS: usize = 3;

/// Number of elements of a row that are decoded at a time.
pub(super) const CHUNK: usize = 128;
/// Number of first steps of pairs; the second step of a pair is this far behind.
const HALF: usize = STEPS / 2;

/// Panels of 16 rows or columns each.
pub(super) struct Panels<'a> {
    pub(super) data: &'a mut [f32],
    /// Distance from one panel to the next.
    pub(super) stride: usize,
}

impl Panels<'_> {
    /// The `N` tiles of a group.
    pub(super) fn group<const N: usize>(
        &mut self,
        panel: usize,
        group: usize,
    ) -> &mut [[f32; PLANE]; N] {
        let start = panel * self.stride + group * N * PLANE;
        self.data[start..]
            .as_chunks_mut()
            .0
            .first_chunk_mut()
            .expect("panels have room for all their groups")
    }
}

/// Writes `factor` times the elements `(first + i, p)`, with `i < count` and `p` in `steps`; zeros
/// fill up panels and groups.
///
/// Each group has `N` tiles: one if every element is a bf16, else three. By rows, the order is `i`
/// and then pairs of steps `(p, p + 16)`; otherwise it is pairs of steps and then `i`.
///
/// # Safety
/// The processor must have AVX-512 with bf16.
pub(super) unsafe fn pack<const BY_ROWS: bool, const N: usize>(
    operand: Operand<'_>,
    factor: f32,
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    // SAFETY: the caller promises the features.
    unsafe {
        match operand {
            Operand::Rows(rows) => {
                from_rows::<BY_ROWS, N>(rows, factor, (first, count), steps, panels)
            }
            Operand::Columns(rows) => {
                from_columns::<BY_ROWS, N>(rows, factor, (first, count), steps, panels);
            }
        }
    }
}

/// Packs rows that hold all steps of one `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn from_rows<const BY_ROWS: bool, const N: usize>(
    rows: &dyn Rows,
    factor: f32,
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    let mut scratch = [[0f32; CHUNK]; SIDE];
    let nothing = [0f32; CHUNK];
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
                let masks = [low_bits(here), low_bits(here.saturating_sub(HALF))];
                // Prefetches the next elements of these rows, a few at a time.
                for source in &sources[..count] {
                    prefetch(source.as_ptr().wrapping_add(CHUNK + at));
                    prefetch(source.as_ptr().wrapping_add(CHUNK + at + HALF));
                }
                let group = panels.group(panel, (done + at) / STEPS);
                write::<BY_ROWS, true, N>(group, factor, |i, half| {
                    let source = sources[i].as_ptr().wrapping_add(at + half * HALF);
                    // SAFETY: `at + here ≤ len`, the length of all sources; the mask ends there.
                    unsafe { _mm512_maskz_loadu_ps(masks[half], source) }
                });
            }
        }
    }
}

/// Packs rows that hold one step of all `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn from_columns<const BY_ROWS: bool, const N: usize>(
    rows: &dyn Rows,
    factor: f32,
    (first, count): (usize, usize),
    steps: Range<usize>,
    panels: &mut Panels<'_>,
) {
    // A few panels at a time, so that long pieces of the rows are read.
    const TOGETHER: usize = CHUNK / SIDE;
    let plain = rows.plain();
    let mut scratch = [[0f32; CHUNK]; STEPS];
    for from in (0..count).step_by(CHUNK) {
        let len = CHUNK.min(count - from);
        let columns = first + from..first + from + len;
        for start in steps.clone().step_by(STEPS) {
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
                if let Some((_, stride)) = plain {
                    // Processors do not predict that the next rows are far away.
                    for source in &sources[..here] {
                        let ahead = STEPS * stride + panel * SIDE;
                        prefetch(source.as_ptr().wrapping_add(ahead));
                    }
                }
                let mask = low_bits(len - panel * SIDE);
                let group = panels.group(
                    from / CHUNK * TOGETHER + panel,
                    (start - steps.start) / STEPS,
                );
                write::<BY_ROWS, false, N>(group, factor, |pair, half| {
                    let p = pair + half * HALF;
                    if p < here {
                        let source = sources[p].as_ptr().wrapping_add(panel * SIDE);
                        // SAFETY: the mask ends with the source.
                        unsafe { _mm512_maskz_loadu_ps(mask, source) }
                    } else {
                        _mm512_setzero_ps()
                    }
                });
            }
        }
    }
}

/// Mask of the lowest bits, at most 16.
pub(super) fn low_bits(count: usize) -> __mmask16 {
    ((1u32 << count.min(SIDE)) - 1) as __mmask16
}

/// Writes the tiles of a group. `load(r, half)` returns 16 elements: by rows, half of the steps of
/// row `r`; otherwise step `r` of that half.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn write<const BY_ROWS: bool, const FROM_ROWS: bool, const N: usize>(
    group: &mut [[f32; PLANE]; N],
    factor: f32,
    load: impl Fn(usize, usize) -> __m512,
) {
    let mut other = Aligned([[0.0; PLANE]; N]);
    let target = if BY_ROWS == FROM_ROWS {
        &mut *group
    } else {
        &mut other.0
    };
    let scale = _mm512_set1_ps(factor);
    for r in 0..SIDE {
        let (mut low, mut high) = (load(r, 0), load(r, 1));
        if factor != 1.0 {
            (low, high) = (_mm512_mul_ps(low, scale), _mm512_mul_ps(high, scale));
        }
        for (tile, part) in target.iter_mut().zip(split(low, high)) {
            let to = &mut tile[r * SIDE..][..SIDE];
            // SAFETY: there is room for 16 elements.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), part) };
        }
    }
    if BY_ROWS != FROM_ROWS {
        for (to, from) in group.iter_mut().zip(&other.0) {
            transpose(from, to);
        }
    }
}

/// Aligned memory for tiles between registers and panels.
#[repr(align(64))]
pub(super) struct Aligned<T>(pub(super) T);

/// Pairs `(low[i], high[i])` of each of the three parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn split(mut low: __m512, mut high: __m512) -> [__m512i; PARTS] {
    let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
    let mut part = || {
        let part = pairs(low, high);
        low = _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(part)));
        high = _mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_and_si512(part, upper)));
        part
    };
    let (first, second) = (part(), part());
    // The remainder has eight digits.
    let (low, high) = (_mm512_castps_si512(low), _mm512_castps_si512(high));
    let third = _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(low), high);
    [first, second, third]
}

/// Pairs `(low[i], high[i])`, rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pairs(low: __m512, high: __m512) -> __m512i {
    // Words 0, 16, 1, 17, …
    let order = _mm512_set_epi32(
        0x1f_000f, 0x1e_000e, 0x1d_000d, 0x1c_000c, 0x1b_000b, 0x1a_000a, 0x19_0009, 0x18_0008,
        0x17_0007, 0x16_0006, 0x15_0005, 0x14_0004, 0x13_0003, 0x12_0002, 0x11_0001, 0x10_0000,
    );
    _mm512_permutexvar_epi16(order, halves(low, high))
}

/// All numbers of `low` and then those of `high`, rounded to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn halves(low: __m512, high: __m512) -> __m512i {
    let rounded = _mm512_cvtne2ps_pbh(high, low);
    // SAFETY: both types have 64 bytes.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(rounded) }
}

/// `to[j, i] = from[i, j]` of 16 × 16 elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn transpose(from: &[f32; PLANE], to: &mut [f32; PLANE]) {
    for column in (0..SIDE).step_by(4) {
        // Loads four columns of the rows r, r + 4, r + 8 and r + 12.
        let rows: [__m512; 4] = std::array::from_fn(|r| {
            let four = |row: usize| {
                let source = from[row * SIDE + column..][..4].as_ptr();
                // SAFETY: there are four elements.
                unsafe { _mm_loadu_ps(source) }
            };
            // Lane l holds the rows 4 l to 4 l + 3.
            let lanes = _mm512_castps128_ps512(four(r));
            let lanes = _mm512_insertf32x4::<1>(lanes, four(r + 4));
            let lanes = _mm512_insertf32x4::<2>(lanes, four(r + 8));
            _mm512_insertf32x4::<3>(lanes, four(r + 12))
        });
        let (a, b) = (
            _mm512_unpacklo_ps(rows[0], rows[1]),
            _mm512_unpackhi_ps(rows[0], rows[1]),
        );
        let (c, d) = (
            _mm512_unpacklo_ps(rows[2], rows[3]),
            _mm512_unpackhi_ps(rows[2], rows[3]),
        );
        let columns = [
            _mm512_shuffle_ps::<0x44>(a, c),
            _mm512_shuffle_ps::<0xee>(a, c),
            _mm512_shuffle_ps::<0x44>(b, d),
            _mm512_shuffle_ps::<0xee>(b, d),
        ];
        for (j, values) in columns.into_iter().enumerate() {
            let to = &mut to[(column + j) * SIDE..][..SIDE];
            // SAFETY: there is room for 16 elements.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), values) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Matrix;
    use super::*;
    use half::bf16;
    use tightrope_device::Cpu;
    use tightrope_testkit::Random;

    /// Parts of element `(i, p)`, with `p` counted from the first step.
    fn parts(data: &[f32], by_rows: bool, n: usize, stride: usize, i: usize, p: usize) -> Vec<f32> {
        let group = &data[i / SIDE * stride + p / STEPS * n * PLANE..][..n * PLANE];
        let (i, half, pair) = (i % SIDE, p % STEPS / HALF, p % HALF);
        let at = if by_rows {
            i * SIDE + pair
        } else {
            pair * SIDE + i
        };
        let part = |tile: &[f32]| {
            let bits = (tile[at].to_bits() >> (16 * half)) as u16;
            bf16::from_bits(bits).to_f32()
        };
        group.chunks(PLANE).map(part).collect()
    }

    fn check<const BY_ROWS: bool, const N: usize>(element: impl Fn(usize) -> f32) {
        let data: Vec<f32> = (0..90 * 400).map(element).collect();
        let matrix = Matrix::new(&data[..], 90);
        for from_rows in [true, false] {
            for (first, count, steps) in [
                (0, 16usize, 0..32),
                (3, 1, 2..3),
                (5, 41, 1..90),
                (1, 70, 7..55),
            ] {
                let stride = steps.len().div_ceil(STEPS) * N * PLANE;
                let mut packed = vec![f32::NAN; count.div_ceil(SIDE) * stride];
                let operand = if from_rows {
                    Operand::Rows(&matrix)
                } else {
                    Operand::Columns(&matrix)
                };
                let panels = &mut Panels {
                    data: &mut packed,
                    stride,
                };
                // SAFETY: the caller has checked that there are tiles.
                unsafe { pack::<BY_ROWS, N>(operand, -2.0, (first, count), steps.clone(), panels) };
                for i in 0..count.next_multiple_of(SIDE) {
                    for p in 0..steps.len().next_multiple_of(STEPS) {
                        let (row, column) = (first + i, steps.start + p);
                        let inside = i < count && p < steps.len();
                        let expected = match (inside, from_rows) {
                            (false, _) => 0.0,
                            (true, true) => -2.0 * data[row * 90 + column],
                            (true, false) => -2.0 * data[column * 90 + row],
                        };
                        let parts = parts(&packed, BY_ROWS, N, stride, i, p);
                        let (last, rest) = parts.split_last().unwrap();
                        assert_eq!(rest.iter().sum::<f32>() + last, expected, "{row} {column}");
                        // Each part is the rounding error of the one before it.
                        for pair in parts.windows(2) {
                            assert!(pair[1].abs() <= pair[0].abs() / 256.0, "{parts:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn parts_add_up_to_every_element_in_its_place() {
        if !Cpu::new(1).unwrap().has_amx() {
            return;
        }
        // Covers all exponents for which the third part is a normal number.
        let random = Random::new(3).normal(90 * 400, 1.0);
        let wide = |at: usize| random[at] * 2f32.powi((at % 200) as i32 - 80);
        check::<true, PARTS>(wide);
        check::<false, PARTS>(wide);
        let short = |at: usize| bf16::from_f32(random[at]).to_f32();
        check::<true, 1>(short);
        check::<false, 1>(short);
    }
}
