//! Divides a result into tiles that fit the caches and cost least.

use super::tile::BLOCK;
use crate::product::matmul::{Precision, parts, parts_of};
use std::ops::Range;

/// Largest number of rows in a tile of the result: its block of `a` (960 KiB) stays in the
/// second-level cache.
pub(super) const TILE_ROWS: usize = 256;
/// Largest number of columns in a tile of the result.
pub(super) const TILE_COLUMNS: usize = 1536;

/// Rows and columns of the tiles for this number of threads.
pub(super) fn tiles(
    m: usize,
    columns: Range<usize>,
    precision: Precision,
    b_is_packed: bool,
    threads: usize,
) -> Vec<(Range<usize>, Range<usize>)> {
    // Rough cycles for each product: for its one or six parts, for packing `a` once per tile, and
    // for packing `b`, or fetching it from a shared cache, once per tile.
    let (multiply, pack_a, pack_b, fetch_b) = match precision {
        Precision::F32 => (0.01, 0.6, 1.0, 0.3),
        Precision::Bf16 => (0.002, 0.1, 0.3, 0.1),
    };
    let b = if b_is_packed { fetch_b } else { pack_b };
    let n = columns.len();
    let size = |len: usize, count: usize| len.div_ceil(count).next_multiple_of(BLOCK);
    let cost = |&(down, across): &(usize, usize)| {
        let (height, width) = (size(m, down), size(n, across));
        let count = m.div_ceil(height) * n.div_ceil(width);
        // The last round may leave threads idle, and other work on the machine delays one of them
        // by a part of a tile.
        let rounds = count.div_ceil(threads) as f64 + 0.25;
        let idle = rounds * threads as f64 / count as f64;
        multiply * idle + pack_a / width as f64 + b / height as f64
    };
    let (least_down, least_across) = (m.div_ceil(TILE_ROWS), n.div_ceil(TILE_COLUMNS));
    let choices = |least: usize, len: usize| {
        let most = (least + 4 * threads).min(len.div_ceil(BLOCK));
        least..=most.max(least)
    };
    let (down, across) = choices(least_down, m)
        .flat_map(|down| choices(least_across, n).map(move |across| (down, across)))
        .min_by(|a, b| cost(a).total_cmp(&cost(b)))
        .unwrap_or((1, 1));
    let mut tiles = Vec::new();
    for rows in parts(m, size(m, down)) {
        tiles.extend(
            parts_of(columns.clone(), size(n, across)).map(|columns| (rows.clone(), columns)),
        );
    }
    tiles
}
