//! Tiles of a pair of blocks that hold visible pairs, and products over these tiles alone.
//!
//! The skipped values are exactly zero or never read, and the chains of the products keep their
//! order: the results have the same bits as with every tile computed.

use super::block::{BLOCK, Layout, TILE, overlap};
use crate::product::matmul::{Left, Right, small_product};
use std::ops::Range as Span;

/// For each tile of queries, the visible keys of the block, in whole tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    keys: [Span<usize>; BLOCK / TILE],
    /// Numbers of queries and keys in the blocks.
    sizes: (usize, usize),
}

impl Seen {
    pub(super) fn new(layout: &Layout, queries: &Span<usize>, keys: &Span<usize>) -> Self {
        let first = queries.start + layout.offset();
        let span = |tile: usize| {
            let query = tile * TILE;
            if query >= queries.len() {
                return 0..0;
            }
            let last = queries.len().min(query + TILE) - 1;
            let from = (first + query + 1)
                .saturating_sub(layout.window)
                .max(keys.start);
            let to = (first + last + 1).min(keys.end);
            if from >= to {
                return 0..0;
            }
            let (from, to) = (from - keys.start, to - keys.start);
            from / TILE * TILE..to.next_multiple_of(TILE).min(keys.len())
        };
        Self {
            keys: std::array::from_fn(span),
            sizes: (queries.len(), keys.len()),
        }
    }

    /// Tiles of queries that see something, with the visible keys.
    pub(super) fn tiles(&self) -> impl Iterator<Item = (usize, Span<usize>)> + '_ {
        let tiles = self.keys.iter().cloned().enumerate();
        tiles.filter(|(_, keys)| !keys.is_empty())
    }

    /// Whether every lane of the block sees every key, so that nothing can be skipped.
    pub(super) fn everything(&self) -> bool {
        self.keys.iter().all(|keys| *keys == (0..self.sizes.1))
    }

    /// Whether every tile with queries sees every key.
    fn whole(&self) -> bool {
        let tiles = self.sizes.0.div_ceil(TILE);
        self.keys[..tiles]
            .iter()
            .all(|keys| *keys == (0..self.sizes.1))
    }

    /// `C[keys, BLOCK] = alpha · A[keys, k] · B[k, queries]`, with the keys of the block in the rows
    /// of `a`; `b` in panels.
    pub(super) fn pairs(
        &self,
        (a, stride): (&[f32], usize),
        (b, k): (&[f32], usize),
        alpha: f32,
        c: &mut [f32],
    ) {
        let mut product = |query: usize, queries: usize, keys: Span<usize>| {
            let a = Left::Rows(&a[keys.start * stride..], stride);
            let b = Right::Panels(&b[query * k..]);
            let c = &mut c[keys.start * BLOCK + query..];
            small_product((keys.len(), queries, k), a, b, alpha, false, (c, BLOCK));
        };
        if self.whole() {
            let queries = self.sizes.0.next_multiple_of(TILE);
            return product(0, queries, 0..self.sizes.1);
        }
        for (tile, keys) in self.tiles() {
            product(tile * TILE, TILE, keys);
        }
    }

    /// `C[queries, width] += Aᵀ · B`, with `a` `[keys, BLOCK]` and `b` `[keys, width]`.
    pub(super) fn over_keys(&self, a: &[f32], b: &[f32], width: usize, c: &mut [f32]) {
        let mut product = |query: usize, queries: usize, keys: Span<usize>| {
            let left = Left::Columns(&a[keys.start * BLOCK + query..], BLOCK);
            let right = Right::Rows(&b[keys.start * width..], width);
            let c = &mut c[query * width..];
            let sizes = (queries, width, keys.len());
            small_product(sizes, left, right, 1.0, true, (c, width));
        };
        if self.whole() {
            return product(0, self.sizes.0, 0..self.sizes.1);
        }
        for (tile, keys) in self.tiles() {
            let query = tile * TILE;
            product(query, TILE.min(self.sizes.0 - query), keys);
        }
    }

    /// `C[keys, width] += A · B` for the keys `run` of the block, which are the rows of `c`, with `a`
    /// `[keys, BLOCK]` and `b` `[queries, width]`.
    pub(super) fn over_queries(
        &self,
        run: Span<usize>,
        a: &[f32],
        (b, width): (&[f32], usize),
        c: &mut [f32],
    ) {
        let mut product = |keys: Span<usize>, queries: Span<usize>| {
            let keys = overlap(&keys, &run);
            if keys.is_empty() {
                return;
            }
            let left = Left::Rows(&a[keys.start * BLOCK + queries.start..], BLOCK);
            let right = Right::Rows(&b[queries.start * width..], width);
            let c = &mut c[(keys.start - run.start) * width..];
            let sizes = (keys.len(), width, queries.len());
            small_product(sizes, left, right, 1.0, true, (c, width));
        };
        if self.whole() {
            return product(0..self.sizes.1, 0..self.sizes.0);
        }
        for key in (0..self.sizes.1).step_by(TILE) {
            // The tiles are neighbours: both ends of the visible keys grow with the queries of a
            // tile.
            let mut tiles = self.tiles().filter(|(_, keys)| keys.contains(&key));
            if let Some((first, _)) = tiles.next() {
                let last = tiles.last().map_or(first, |(tile, _)| tile);
                let queries = first * TILE..self.sizes.0.min((last + 1) * TILE);
                product(key..self.sizes.1.min(key + TILE), queries);
            }
        }
    }
}
