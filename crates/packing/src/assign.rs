//! Assigns sequences to the places of the packs that were made from the histogram.

use crate::{
    Histogram, PackError, Strategies,
    histogram::DENSE,
    overlong::Pieces,
    packing::Storage,
    random::{Random, Stream},
};

/// Puts pieces into the places of `strategies`, which hold exactly `pieces.histogram`.
///
/// A counting sort groups the piece numbers by length; each pack then takes the next pieces of the
/// lengths that it holds. O(pieces + packs); besides the result it needs 4 bytes for each piece and
/// each pack.
pub(crate) fn assign(
    pieces: &Pieces,
    strategies: &Strategies,
    seed: Option<u64>,
) -> Result<Storage, PackError> {
    let ranks = Ranks::new(&pieces.histogram);
    let mut numbers = sort_by_length(pieces, &ranks);
    let mut order: Vec<u32> = Vec::with_capacity(strategies.packs() as usize);
    for (index, (count, _)) in strategies.iter().enumerate() {
        order.extend(std::iter::repeat_n(index as u32, count as usize));
    }
    if let Some(seed) = seed {
        Random::stream(seed, Stream::Packs).shuffle(&mut order);
        let mut equal = Random::stream(seed, Stream::EqualPacks);
        let mut rest = numbers.as_mut_slice();
        for &(_, count) in pieces.histogram.entries() {
            let (group, after) = rest.split_at_mut(count as usize);
            equal.shuffle(group);
            rest = after;
        }
    }

    // Pairs each run with the index of its length, which is looked up once and not for every pack.
    let mut runs = Vec::new();
    let mut ends = Vec::with_capacity(strategies.len());
    for (_, strategy) in strategies.iter() {
        runs.extend(strategy.iter().map(|run| (ranks.rank(run.length), *run)));
        ends.push(runs.len());
    }
    let mut next = ranks.starts;
    let mut storage = Storage::with_capacity(numbers.len(), order.len());
    for strategy in order {
        let strategy = strategy as usize;
        let start = if strategy == 0 { 0 } else { ends[strategy - 1] };
        for &(rank, run) in &runs[start..ends[strategy]] {
            let from = next[rank] as usize;
            let to = from + run.repeat as usize;
            let taken = numbers[from..to].iter();
            storage.extend(taken.map(|&number| pieces.piece(number, run.length)));
            next[rank] = to as u32;
        }
        storage.end_pack();
    }
    storage.check()?;
    Ok(storage)
}

fn sort_by_length(pieces: &Pieces, ranks: &Ranks) -> Vec<u32> {
    let mut numbers = vec![0u32; pieces.histogram.sequences() as usize];
    let mut dense = ranks.dense_starts();
    let mut next = ranks.starts.clone();
    for (number, length) in pieces.numbered() {
        let at = match dense.get_mut(length as usize) {
            Some(at) => at,
            None => &mut next[ranks.rank(length)],
        };
        numbers[*at as usize] = number;
        *at += 1;
    }
    numbers
}

/// Numbers the distinct lengths, and gives the start of the pieces of each length in sorted order.
struct Ranks<'a> {
    entries: &'a [(u32, u64)],
    starts: Vec<u32>,
}

impl<'a> Ranks<'a> {
    fn new(histogram: &'a Histogram) -> Self {
        let entries = histogram.entries();
        let mut start = 0;
        let starts = entries.iter().map(|&(_, count)| {
            let this = start;
            // Piece numbers are u32, so their count fits u32.
            start += count as u32;
            this
        });
        Self {
            starts: starts.collect(),
            entries,
        }
    }

    fn rank(&self, length: u32) -> usize {
        self.entries.partition_point(|entry| entry.0 < length)
    }

    /// The starts of lengths below [`DENSE`], by length.
    fn dense_starts(&self) -> Vec<u32> {
        let below = self.entries.partition_point(|e| (e.0 as usize) < DENSE);
        let longest = self.entries[..below].last().map_or(0, |e| e.0 as usize);
        let mut dense = vec![0; longest + 1];
        for (entry, &start) in self.entries[..below].iter().zip(&self.starts) {
            dense[entry.0 as usize] = start;
        }
        dense
    }
}
