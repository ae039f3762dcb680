//! Blocks of queries and keys: their places, their masks and the arithmetic within them.

use super::super::{Config, Range};
use super::seen::Seen;
use crate::{
    cpu::{
        float::{Activation, Float, same_type, widen},
        math::{self, exp},
    },
    product::matmul::{Matrix, Operand, pack},
};
use std::ops::Range as Span;
use tightrope_device::{Cpu, vectorize};

/// Number of queries, and of keys, in a block.
pub(super) const BLOCK: usize = 64;

/// Number of queries, and of keys, in a tile; a block skips tiles of pairs that are masked.
pub(super) const TILE: usize = 16;
/// One value per query of a block.
pub(super) type Lanes = [f32; BLOCK];

/// Places of the blocks of a range under the rules of the batch. Keys are counted from the first of
/// the prefix, or of the range if there is none.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) range: Range,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f32,
    pub(super) window: usize,
    pub(super) softcap: Option<f32>,
}

impl Layout {
    pub(super) fn new(config: &Config<'_, Cpu>, range: Range) -> Self {
        Self {
            range,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: config.scale,
            window: config.window.unwrap_or(usize::MAX),
            softcap: config.softcap,
        }
    }

    /// `head_dim`, rounded up to the number of columns that the kernel computes at a time.
    pub(super) fn width(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    pub(super) fn queries(&self) -> usize {
        self.range.query_len as usize
    }

    /// Number of keys, those of the prefix included.
    pub(super) fn keys(&self) -> usize {
        self.range.keys() as usize
    }

    /// The range's own keys.
    pub(super) fn own_keys(&self) -> Span<usize> {
        self.range.prefix_len as usize..self.keys()
    }

    /// Index of the key at the position of query 0.
    pub(super) fn offset(&self) -> usize {
        self.keys() - self.queries()
    }

    /// Query heads that share key head `kv_head`.
    pub(super) fn group(&self, kv_head: usize) -> Span<usize> {
        let size = self.heads / self.kv_heads;
        kv_head * size..(kv_head + 1) * size
    }

    pub(super) fn kv_head(&self, head: usize) -> usize {
        head * self.kv_heads / self.heads
    }

    /// Index of query `query` of `head` in `lse`; times `head_dim`, in `q`.
    pub(super) fn query_row(&self, query: usize, head: usize) -> usize {
        (self.range.query_start as usize + query) * self.heads + head
    }

    /// First element of key `key` of `kv_head` in `k`.
    pub(super) fn key_at(&self, key: usize, kv_head: usize) -> usize {
        let row = match key.checked_sub(self.range.prefix_len as usize) {
            Some(own) => self.range.key_start as usize + own,
            None => self.range.prefix_start as usize + key,
        };
        (row * self.kv_heads + kv_head) * self.head_dim
    }

    /// The block of queries, or of keys, that starts at `start`.
    pub(super) fn block(start: usize, len: usize) -> Span<usize> {
        start..len.min(start + BLOCK)
    }

    /// Starts of all blocks of queries.
    pub(super) fn query_blocks(&self) -> impl Iterator<Item = usize> + Clone {
        (0..self.queries()).step_by(BLOCK)
    }

    /// Starts of the blocks of keys that `queries` can see.
    pub(super) fn key_blocks(&self, queries: &Span<usize>) -> impl Iterator<Item = usize> + Clone {
        let first = (queries.start + self.offset() + 1).saturating_sub(self.window);
        (first / BLOCK * BLOCK..queries.end + self.offset()).step_by(BLOCK)
    }

    /// The range's own keys in each block of keys.
    pub(super) fn own_key_blocks(&self) -> impl Iterator<Item = Span<usize>> + Clone {
        let own = self.own_keys();
        let blocks = (own.start / BLOCK * BLOCK..own.end).step_by(BLOCK);
        blocks.map(move |start| overlap(&(start..start + BLOCK), &own))
    }

    /// Starts of the blocks of queries that can see some of `keys`.
    pub(super) fn query_blocks_of(
        &self,
        keys: &Span<usize>,
    ) -> impl Iterator<Item = usize> + Clone {
        let (layout, keys) = (*self, keys.clone());
        self.query_blocks().filter(move |&start| {
            let queries = Self::block(start, layout.queries());
            let mut blocks = layout.key_blocks(&queries);
            blocks.any(|start| start < keys.end && keys.start < start + BLOCK)
        })
    }

    /// Sets the scores of masked keys to −∞. `scores`: `[keys, BLOCK]`.
    pub(super) fn mask(&self, scores: &mut [f32], queries: &Span<usize>, keys: &Span<usize>) {
        let (first, last) = (
            queries.start + self.offset(),
            queries.end - 1 + self.offset(),
        );
        if keys.end - 1 <= first && last < keys.start.saturating_add(self.window) {
            return;
        }
        for (row, key) in scores.chunks_exact_mut(BLOCK).zip(keys.clone()) {
            // Query `first + lane` sees `key` if `key ≤ first + lane < key + window`.
            let from = key.saturating_sub(first).min(BLOCK);
            let to = key
                .saturating_add(self.window)
                .saturating_sub(first)
                .min(BLOCK);
            row[..from].fill(f32::NEG_INFINITY);
            row[to.max(from)..].fill(f32::NEG_INFINITY);
        }
    }

    /// Rows of these keys in `from`, which has the shape of `k`, and the distance from one to the
    /// next. They are copied into `to` unless they are f32 in one place: those of a block that
    /// begins in the prefix lie in two.
    pub(super) fn key_rows<'a, T: Activation>(
        &self,
        from: &'a [T],
        kv_head: usize,
        keys: &Span<usize>,
        to: &'a mut [f32],
    ) -> (&'a [f32], usize) {
        let own = self.own_keys().start;
        if let Some(from) = same_type(from)
            && (keys.end <= own || own <= keys.start)
        {
            let rows = &from[self.key_at(keys.start, kv_head)..];
            return (rows, self.kv_heads * self.head_dim);
        }
        copy_rows(to, self.width(), from, self.head_dim, keys.clone(), |key| {
            self.key_at(key, kv_head)
        });
        (to, self.width())
    }

    pub(super) fn cap(&self, scores: &mut [f32]) {
        if let Some(softcap) = self.softcap {
            math::softcap(scores, softcap);
        }
    }
}

/// What is in both.
pub(super) fn overlap(a: &Span<usize>, b: &Span<usize>) -> Span<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// Widens `rows.len()` rows into rows of `width`, with zeros after `head_dim`; `at` gives the start
/// of each.
pub(super) fn copy_rows<T: Activation>(
    to: &mut [f32],
    width: usize,
    from: &[T],
    head_dim: usize,
    rows: Span<usize>,
    at: impl Fn(usize) -> usize,
) {
    for (to, row) in to.chunks_exact_mut(width).zip(rows) {
        let from = &from[at(row)..][..head_dim];
        match same_type(from) {
            Some(from) => to[..head_dim].copy_from_slice(from),
            None => widen(to, from),
        }
        to[head_dim..].fill(0.0);
    }
}

/// Packs `queries` of `head` from `from`, which has the shape of `q`, as the right operand of a
/// product.
pub(super) fn pack_queries<'a, T: Activation>(
    to: &'a mut [f32],
    from: &[T],
    layout: &Layout,
    head: usize,
    queries: &Span<usize>,
) -> &'a [f32] {
    let (dim, count) = (layout.head_dim, queries.len());
    let rows = &from[layout.query_row(queries.start, head) * dim..];
    let matrix = Matrix::new(rows, layout.heads * dim);
    let to = &mut to[..count.next_multiple_of(TILE) * dim];
    pack::<TILE>(Operand::Rows(&matrix), 0, count, 0..dim, to);
    to
}

/// [`online_softmax`] of one group of `W` lanes, the widest that the processor can take.
#[inline(always)]
fn softmax_lanes<const W: usize>(
    scores: &mut [f32],
    group: usize,
    keys: Span<usize>,
    max: &mut Lanes,
    sum: &mut Lanes,
    factor: &mut Lanes,
) {
    let rows = scores.as_chunks_mut::<W>().0;
    let row = |key: usize| key * (BLOCK / W) + group;
    let max = &mut max.as_chunks_mut::<W>().0[group];
    let sum = &mut sum.as_chunks_mut::<W>().0[group];
    let factor = &mut factor.as_chunks_mut::<W>().0[group];
    let before = *max;
    for key in keys.clone() {
        let scores = &rows[row(key)];
        for lane in 0..W {
            // The second choice keeps a NaN of `max`, and the comparison keeps a NaN of `scores`.
            let larger = scores[lane] > max[lane] || scores[lane].is_nan();
            max[lane] = if larger { scores[lane] } else { max[lane] };
        }
    }
    // The factor is 0 if nothing has been seen yet, because −∞ − −∞ is NaN.
    let mut from = [0f32; W];
    for lane in 0..W {
        from[lane] = if max[lane] == f32::NEG_INFINITY {
            0.0
        } else {
            max[lane]
        };
        factor[lane] = exp(before[lane] - from[lane]);
        sum[lane] *= factor[lane];
    }
    for key in keys {
        let scores = &mut rows[row(key)];
        for lane in 0..W {
            scores[lane] = exp(scores[lane] - from[lane]);
            sum[lane] += scores[lane];
        }
    }
}

/// [`differentiate`] of one group of `W` lanes.
#[inline(always)]
fn differentiate_lanes<const W: usize>(
    scores: &mut [f32],
    dp: &mut [f32],
    group: usize,
    keys: Span<usize>,
    (lse, delta): (&Lanes, &Lanes),
    (scale, inverse_softcap): (f32, f32),
) {
    let (scores, dp) = (scores.as_chunks_mut::<W>().0, dp.as_chunks_mut::<W>().0);
    let (lse, delta) = (
        &lse.as_chunks::<W>().0[group],
        &delta.as_chunks::<W>().0[group],
    );
    for key in keys {
        let at = key * (BLOCK / W) + group;
        let (row, dp) = (&mut scores[at], &mut dp[at]);
        for lane in 0..W {
            let p = exp(row[lane] - lse[lane]);
            let t = row[lane] * inverse_softcap;
            let ds = scale * (1.0 - t * t) * p * (dp[lane] - delta[lane]);
            // A masked score is −∞, and its slope is not a number.
            dp[lane] = if p == 0.0 { 0.0 } else { ds };
            row[lane] = p;
        }
    }
}

vectorize! {
    /// One step of the online softmax: turns the visible `scores` `[keys, BLOCK]` into `exp(scores
    /// − max)`, where `max` is the largest score so far, updates `max` and `sum`, and sets `factor`
    /// to the factor for earlier sums.
    pub(super) fn online_softmax(scores: &mut [f32], seen: &Seen, max: &mut Lanes, sum: &mut Lanes, factor: &mut Lanes) {
        if seen.everything() {
            return softmax_lanes::<BLOCK>(scores, 0, 0..scores.len() / BLOCK, max, sum, factor);
        }
        // Queries that see nothing here keep their sums.
        *factor = [1.0; BLOCK];
        for (tile, keys) in seen.tiles() {
            softmax_lanes::<TILE>(scores, tile, keys, max, sum, factor);
        }
    }

    /// Turns the visible `scores` into probabilities `p`, and `dp` into `scale · slope · p · (dp −
    /// delta)`, the gradient of `q·k`; both are `[keys, BLOCK]`. `slope` is the derivative of the
    /// softcap, whose inverse is 0 if there is none.
    pub(super) fn differentiate(scores: &mut [f32], dp: &mut [f32], seen: &Seen, lse: &Lanes, delta: &Lanes, scale: f32, inverse_softcap: f32) {
        let scales = (scale, inverse_softcap);
        if seen.everything() {
            let keys = 0..scores.len() / BLOCK;
            return differentiate_lanes::<BLOCK>(scores, dp, 0, keys, (lse, delta), scales);
        }
        for (tile, keys) in seen.tiles() {
            differentiate_lanes::<TILE>(scores, dp, tile, keys, (lse, delta), scales);
        }
    }

    /// `Σ a·b`, in 16 lanes and a fixed order.
    pub(super) fn dot<T: Float>(a: &[T], b: &[T]) -> f32 {
        let mut lanes = [0f32; 16];
        let (a, a_rest) = a.as_chunks::<16>();
        let (b, b_rest) = b.as_chunks::<16>();
        for (a, b) in a.iter().zip(b) {
            for lane in 0..16 {
                lanes[lane] = a[lane].get().mul_add(b[lane].get(), lanes[lane]);
            }
        }
        for ((a, b), lane) in a_rest.iter().zip(b_rest).zip(&mut lanes) {
            *lane = a.get().mul_add(b.get(), *lane);
        }
        lanes.iter().sum()
    }

    /// `row[d] *= factor`.
    pub(super) fn scale_row(row: &mut [f32], factor: f32) {
        for value in row {
            *value *= factor;
        }
    }
}
