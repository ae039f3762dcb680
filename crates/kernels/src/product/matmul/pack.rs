//! Copies operands into panels, which hold `W` elements of each step of the sum next to each other.

use super::micro::{COLUMNS, prefetch};
use super::{Operand, Rows};
use rayon::prelude::*;
use std::ops::Range;

/// Number of rows that are prefetched.
const AHEAD: usize = 4;
/// Number of elements of a row that are decoded at a time.
const CHUNK: usize = 128;

/// Writes element `(first + i, p)` to `panel[(p − steps.start) · W + i]` for `i` in `0..W` and `p`
/// in `steps`; zero for `i ≥ count`. `W` is at most 16.
///
/// Several panels may be written at once: panel `g` starts at `g · W · steps.len()` and holds the
/// elements from `first + g · W` on.
pub(crate) fn pack<const W: usize>(
    operand: Operand<'_>,
    first: usize,
    count: usize,
    steps: Range<usize>,
    panels: &mut [f32],
) {
    let panel_len = W * steps.len();
    if panel_len == 0 {
        return;
    }
    match operand {
        Operand::Rows(rows) => {
            for (g, panel) in panels.chunks_exact_mut(panel_len).enumerate() {
                let first = first + g * W;
                let count = W.min(count.saturating_sub(g * W));
                transpose::<W>(rows, first, count, steps.clone(), panel);
            }
        }
        Operand::Columns(rows) => copy::<W>(rows, first, count, steps, panels),
    }
}

/// Packs the elements `range` of each item on all threads. The panels of `unit` elements of an
/// item, each with as many values as the number beside the item, follow those of the item before
/// it. `pack` gets the first element and the number of some of the elements, and their panels.
pub(super) fn pack_all<T: Copy + Send>(
    items: impl Iterator<Item = (T, usize)>,
    range: Range<usize>,
    unit: usize,
    mut data: &mut [f32],
    pack: impl Fn(T, usize, usize, &mut [f32]) + Sync,
) {
    // A task is a few panels of an item.
    let group = 8 * unit;
    let mut tasks = Vec::new();
    for (item, panel) in items {
        for first in range.clone().step_by(group) {
            let count = group.min(range.end - first);
            let (now, later) = data.split_at_mut(count.div_ceil(unit) * panel);
            data = later;
            tasks.push((item, first, count, now));
        }
    }
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(item, first, count, panels)| pack(item, first, count, panels));
}

/// Packs one panel from `count` rows.
fn transpose<const W: usize>(
    rows: &dyn Rows,
    first: usize,
    count: usize,
    steps: Range<usize>,
    panel: &mut [f32],
) {
    let mut scratch = [[0f32; CHUNK]; 16];
    for done in (0..steps.len()).step_by(CHUNK) {
        let (start, len) = (steps.start + done, CHUNK.min(steps.len() - done));
        let mut sources = [&[0f32; CHUNK][..len]; 16];
        for (i, (source, scratch)) in sources.iter_mut().zip(&mut scratch).enumerate().take(count) {
            *source = rows.row(first + i, start..start + len, scratch);
        }
        // Prefetches the next elements of these rows.
        for source in &sources[..count] {
            for line in (0..CHUNK).step_by(COLUMNS) {
                prefetch(source.as_ptr().wrapping_add(CHUNK + line));
            }
        }
        interleave::<W>(&sources, &mut panel[done * W..]);
    }
}

/// Sets `panel[p · W + i] = sources[i][p]` for every `p` that the sources have; elements of the
/// panel after these may be overwritten.
fn interleave<const W: usize>(sources: &[&[f32]; 16], panel: &mut [f32]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        done = unsafe { avx::interleave::<W>(sources, panel) };
    }
    let steps = panel.chunks_exact_mut(W).take(sources[0].len());
    for (p, step) in steps.enumerate().skip(done) {
        for (value, source) in step.iter_mut().zip(sources) {
            *value = source[p];
        }
    }
}

/// Packs panels from rows that hold one step each.
fn copy<const W: usize>(
    rows: &dyn Rows,
    first: usize,
    count: usize,
    steps: Range<usize>,
    panels: &mut [f32],
) {
    let mut scratch = [0f32; 128];
    let panel_len = W * steps.len();
    // This is called once, because a call for each step would cost more than the copy.
    let plain = rows.plain();
    // As many panels at a time as the scratch memory holds.
    let group = 128 / W;
    for (g, panels) in panels.chunks_mut(group * panel_len).enumerate() {
        let first = first + g * group * W;
        let count = (group * W).min(count.saturating_sub(g * group * W));
        for (step, p) in steps.clone().enumerate() {
            let row = match plain {
                Some((data, stride)) => {
                    // Processors do not predict that the next rows are far away.
                    let ahead = data.as_ptr().wrapping_add((p + AHEAD) * stride + first);
                    for line in (0..count).step_by(COLUMNS) {
                        prefetch(ahead.wrapping_add(line));
                    }
                    &data[p * stride + first..][..count]
                }
                None => rows.row(p, first..first + count, &mut scratch),
            };
            for (g, panel) in panels.chunks_exact_mut(panel_len).enumerate() {
                let (from, to) = (&row[g * W..], &mut panel[step * W..]);
                if W == 6
                    && let (Some(from), Some(to)) = (from.first_chunk::<8>(), to.first_chunk_mut())
                {
                    // Writes two elements too many, which the next step overwrites: this takes
                    // fewer instructions.
                    *to = *from;
                } else if let (Some(from), Some(to)) =
                    (from.first_chunk::<W>(), to.first_chunk_mut())
                {
                    *to = *from;
                } else {
                    to[..from.len()].copy_from_slice(from);
                    to[from.len()..W].fill(0.0);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::*;

    /// Like the function of the same name, for as many whole groups of eight `p` as there is room
    /// for; returns the number of `p` that were done.
    #[target_feature(enable = "avx")]
    pub(super) fn interleave<const W: usize>(sources: &[&[f32]; 16], panel: &mut [f32]) -> usize {
        // Eight elements are written at a time, and the next step begins after `W` of them.
        let width = W.next_multiple_of(8);
        let room = (panel.len() + W).saturating_sub(width) / W;
        let steps = room.min(sources[0].len()) / 8 * 8;
        assert!(sources.iter().all(|source| source.len() >= steps));
        let groups = &sources.as_chunks::<8>().0[..width / 8];
        for (half, sources) in groups.iter().enumerate() {
            for p in (0..steps).step_by(8) {
                for q in [0, 4] {
                    let mut r = [_mm256_setzero_ps(); 4];
                    for (i, r) in r.iter_mut().enumerate() {
                        // SAFETY: `p + 8 ≤ steps`, which the assertion compared with every source.
                        *r = unsafe {
                            let low = _mm_loadu_ps(sources[i].as_ptr().add(p + q));
                            let high = _mm_loadu_ps(sources[i + 4].as_ptr().add(p + q));
                            _mm256_set_m128(high, low)
                        };
                    }
                    // Steps q, q + 1 and q + 2, q + 3 of rows 0, 1 and of rows 2, 3 (and 4 to 7).
                    let (a, b) = (
                        _mm256_unpacklo_ps(r[0], r[1]),
                        _mm256_unpackhi_ps(r[0], r[1]),
                    );
                    let (c, d) = (
                        _mm256_unpacklo_ps(r[2], r[3]),
                        _mm256_unpackhi_ps(r[2], r[3]),
                    );
                    let columns = [
                        _mm256_shuffle_ps::<0x44>(a, c),
                        _mm256_shuffle_ps::<0xee>(a, c),
                        _mm256_shuffle_ps::<0x44>(b, d),
                        _mm256_shuffle_ps::<0xee>(b, d),
                    ];
                    for (step, column) in columns.into_iter().enumerate() {
                        let at = (p + q + step) * W + 8 * half;
                        // SAFETY: `p + q + step < steps ≤ room`, so `at + 8 ≤ panel.len()`.
                        unsafe { _mm256_storeu_ps(panel.as_mut_ptr().add(at), column) };
                    }
                }
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::super::Matrix;
    use super::*;

    fn check<const W: usize>() {
        let data: Vec<f32> = (0..400 * 90).map(|v| v as f32).collect();
        // Element (i, p) under the layout of the operand.
        let matrix = Matrix::new(&data, 90);
        for (first, count, steps) in [
            (0, W, 0..8),
            (3, 1, 2..3),
            (5, 2 * W + 1, 1..85),
            (0, 3 * W, 7..70),
        ] {
            let panels = count.div_ceil(W);
            let mut packed = vec![f32::NAN; panels * W * steps.len()];
            pack::<W>(
                Operand::Rows(&matrix),
                first,
                count,
                steps.clone(),
                &mut packed,
            );
            let at =
                |i: usize, p: usize| packed[(i / W * steps.len() + p - steps.start) * W + i % W];
            for (p, i) in steps
                .clone()
                .flat_map(|p| (0..panels * W).map(move |i| (p, i)))
            {
                let expected = if i < count { (first + i) * 90 + p } else { 0 };
                assert_eq!(at(i, p), expected as f32, "row {i} step {p}");
            }
        }
        for (first, count, steps) in [(0, W, 0..8), (3, 1, 2..3), (5, 4 * W + 1, 1..385)] {
            let panels = count.div_ceil(W);
            let mut packed = vec![f32::NAN; panels * W * steps.len()];
            pack::<W>(
                Operand::Columns(&matrix),
                first,
                count,
                steps.clone(),
                &mut packed,
            );
            for (p, i) in steps
                .clone()
                .flat_map(|p| (0..panels * W).map(move |i| (p, i)))
            {
                let expected = if i < count { p * 90 + first + i } else { 0 };
                let got = packed[(i / W * steps.len() + p - steps.start) * W + i % W];
                assert_eq!(got, expected as f32, "column {i} step {p}");
            }
        }
    }

    #[test]
    fn every_element_lands_in_its_place() {
        check::<6>();
        check::<16>();
    }
}
