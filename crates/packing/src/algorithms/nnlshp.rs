//! Non-negative least squares histogram packing.

use super::nnls::{self, Columns};
use crate::{Histogram, HistogramPacker, Limits, PackError, Run, Strategies};

/// Strategies are all multisets of at most `limits.sequences` lengths that sum to the capacity. A
/// weighted least-squares fit of the contents of the strategies to the histogram (lengths up to
/// [`LIGHT`] weigh [`LIGHT_WEIGHT`], the others 1), rounded to integers, says how often each
/// strategy is used. Left-over sequences go into packs of two with room for the complementary
/// length.
///
/// Source: Krell et al., *Efficient Sequence Packing without Cross-contamination* (2021).
pub(crate) struct Nnlshp;

const LIGHT: usize = 8;
const LIGHT_WEIGHT: f64 = 0.09;
/// Above these limits, enumeration and the dense factor of `capacity²` would exhaust memory.
const MAX_STRATEGIES: usize = 1 << 20;
const MAX_CAPACITY: u64 = 4096;

impl HistogramPacker for Nnlshp {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        let depth = limits.sequences;
        let too_many = PackError::TooManyStrategies {
            capacity: limits.capacity,
            depth,
        };
        if limits.capacity > MAX_CAPACITY {
            return Err(too_many);
        }
        let capacity = limits.capacity as u32;
        let mut multisets = Vec::new();
        if !enumerate(capacity, 1, depth, &mut Vec::new(), &mut multisets) {
            return Err(too_many);
        }
        let mut counts = vec![0u64; capacity as usize];
        for &(length, count) in histogram.entries() {
            counts[length as usize - 1] = count;
        }
        let weight = |row: usize| if row < LIGHT { LIGHT_WEIGHT } else { 1.0 };
        let weighted = counts.iter().enumerate();
        let b: Vec<f64> = weighted.map(|(row, &c)| weight(row) * c as f64).collect();
        let mut columns = Columns::default();
        for multiset in &multisets {
            columns.push(multiset.iter().map(|run| {
                let row = run.length - 1;
                (row, weight(row as usize) * run.repeat as f64)
            }));
        }
        let uses = nnls::solve(&columns, &b);

        // Sequences fill the places of the strategies until each length is used up.
        let mut left = counts;
        let mut strategies = Strategies::default();
        for (multiset, uses) in multisets.iter().zip(uses) {
            fill(
                &mut strategies,
                multiset,
                uses.round_ties_even() as u64,
                &mut left,
            );
        }
        for length in 1..=capacity {
            let count = left[length as usize - 1];
            let alone = [Run { length, repeat: 1 }];
            if count == 0 {
                continue;
            }
            let complement = capacity - length;
            if complement == 0 || depth == 1 {
                fill(&mut strategies, &alone, count, &mut left);
                continue;
            }
            // The published algorithm opens `count` packs and leaves the place of the complement
            // empty: left-over sequences of that length, if any, open packs of their own.
            strategies.push(count, alone);
            left[length as usize - 1] = 0;
        }
        Ok(strategies)
    }
}

/// Appends every multiset of at most `depth` lengths ≥ `least` that sums to `gap`, after `chosen`.
fn enumerate(
    gap: u32,
    least: u32,
    depth: u64,
    chosen: &mut Vec<u32>,
    multisets: &mut Vec<Vec<Run>>,
) -> bool {
    if depth > 1 {
        for length in least..=gap / 2 {
            chosen.push(length);
            let fits = enumerate(gap - length, length, depth - 1, chosen, multisets);
            chosen.pop();
            if !fits {
                return false;
            }
        }
    }
    if multisets.len() == MAX_STRATEGIES {
        return false;
    }
    let mut runs: Vec<Run> = Vec::new();
    for &length in chosen.iter().chain([&gap]) {
        match runs.last_mut() {
            Some(run) if run.length == length => run.repeat += 1,
            _ => runs.push(Run { length, repeat: 1 }),
        }
    }
    multisets.push(runs);
    true
}

/// Adds `uses` packs of a multiset, without the places that no sequence is left for.
fn fill(strategies: &mut Strategies, multiset: &[Run], uses: u64, left: &mut [u64]) {
    let mut uses = uses;
    while uses > 0 {
        let available = |run: &Run| left[run.length as usize - 1].min(run.repeat);
        let runs: Vec<Run> = multiset
            .iter()
            .map(|run| Run {
                repeat: available(run),
                ..*run
            })
            .filter(|run| run.repeat > 0)
            .collect();
        let same = runs
            .iter()
            .map(|run| left[run.length as usize - 1] / run.repeat);
        let Some(same) = same.min() else { return };
        let count = uses.min(same);
        for run in &runs {
            left[run.length as usize - 1] -= count * run.repeat;
        }
        uses -= count;
        strategies.push(count, runs);
    }
}
