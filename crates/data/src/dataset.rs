//! A data set: its sequences, where they come from, and how often its records are taken.

use std::ops::Range;

use tightrope_packing::random;

use crate::error::DataError;
use crate::examples::ExampleKind;
use crate::preflight::Preflight;
use crate::sets::Amount;
use crate::shared::Shared;
use crate::store::Sequences;

/// Largest number of records that are taken of a set.
const MOST: usize = 1 << 28;

/// Sequences with their origins.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// The sequences, in the order of files and rows unless several sets are mixed.
    pub sequences: Sequences,
    /// Kind of the examples.
    pub kind: ExampleKind,
    /// Whether each sequence of labelled answers is a good one; empty for other kinds.
    pub desirable: Vec<bool>,
    /// Examples with shared beginnings, if they are to be shared ([`Dataset::share_beginnings`]).
    pub shared: Option<Shared>,
    /// Report about the data.
    pub report: Preflight,
}

/// Origin of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Index of the file in the loaded paths.
    pub file: u32,
    /// Number of the row in the file, from 1.
    pub row: u64,
    /// Line in the file, from 1, in files of text.
    pub line: Option<u64>,
}

impl Dataset {
    /// Makes examples whose sequences share their beginning, which is then computed once: the answers
    /// of a pair, or sequences that begin alike, in groups of at most `capacity` tokens. No sequence
    /// longer than `longest` shares its beginning. Labelled answers share nothing.
    pub fn share_beginnings(&mut self, longest: u64, capacity: u64) -> Result<(), DataError> {
        self.shared = match self.kind {
            ExampleKind::Pairs => Some(Shared::of_pairs(&self.sequences, longest)?),
            ExampleKind::Sequences => {
                Some(Shared::of_sequences(&self.sequences, longest, capacity)?)
            }
            ExampleKind::Labelled => None,
        };
        Ok(())
    }

    /// Set of a sequence; 0 if there are no sets.
    pub fn set_of(&self, sequence: usize) -> usize {
        let file = self.report.files.get(self.sequences.file(sequence));
        file.map_or(0, |file| file.set)
    }

    /// Sequences of each record: its pieces, the contents of its packed row, or a pair.
    pub fn records(&self) -> impl Iterator<Item = Range<usize>> {
        let (all, mut start) = (&self.sequences, 0);
        std::iter::from_fn(move || {
            let first = start;
            start = (first + 1..all.len())
                .find(|&index| !all.same_record(first, index))
                .unwrap_or(all.len());
            (first < start).then_some(first..start)
        })
    }

    /// Some of the sequences, which may repeat, in this order, with the same report.
    #[must_use]
    pub fn select(&self, indices: Vec<u32>) -> Self {
        let labels = match self.desirable.is_empty() {
            true => Vec::new(),
            false => indices
                .iter()
                .map(|&index| self.desirable[index as usize])
                .collect(),
        };
        Self {
            sequences: self.sequences.select(indices),
            kind: self.kind,
            desirable: labels,
            shared: None,
            report: self.report.clone(),
        }
    }

    /// Takes the records of each set as often as its amount says, set by set. Which records are
    /// taken more often than others depends on the seed and on the name of the set alone. Counts
    /// the sets in the report.
    pub fn taken(self, seed: u64) -> Result<Self, DataError> {
        self.choose(seed, false)
    }

    /// The same, with the sets mixed: every part of the result has each set in its proportion, to
    /// one record. The records of a set come in an order by the seed. A single set whose records
    /// are taken once keeps its order.
    pub fn mixed(self, seed: u64) -> Result<Self, DataError> {
        self.choose(seed, true)
    }

    fn choose(mut self, seed: u64, mix: bool) -> Result<Self, DataError> {
        let sets = self.report.sets.len();
        if sets == 0 {
            return Ok(self);
        }
        // Numbers of 32 bits count all sequences, and so all records.
        let starts: Vec<u32> = self.records().map(|record| record.start as u32).collect();
        let mut of_set = vec![Vec::new(); sets];
        for (index, &start) in (0..).zip(&starts) {
            of_set[self.set_of(start as usize)].push(index);
        }
        let as_read = sets == 1 && self.report.sets[0].amount == Amount::default();
        let mut chosen = Vec::with_capacity(sets);
        for (set, own) in self.report.sets.iter_mut().zip(of_set) {
            let taken = set.amount.of(own.len());
            if taken == 0 || taken > MOST {
                return Err(DataError::EmptySet {
                    set: set.name.clone(),
                    records: own.len() as u64,
                    amount: set.amount,
                });
            }
            (set.records, set.taken) = (own.len() as u64, taken as u64);
            if !as_read {
                chosen.push(choose(own, taken, random::at(seed, set.key()), mix));
            }
        }
        if !as_read {
            let order = match mix {
                true => interleave(&chosen),
                false => chosen.concat(),
            };
            drop(chosen);
            let end = |record: u32| starts.get(record as usize + 1).copied();
            let all = self.sequences.len() as u32;
            let sequences = order
                .iter()
                .flat_map(|&record| starts[record as usize]..end(record).unwrap_or(all));
            self = self.select(sequences.collect());
        }
        for index in 0..self.sequences.len() {
            let set = self.set_of(index);
            let (length, trained) = (
                self.sequences.length(index),
                self.sequences.trained_tokens(index),
            );
            self.report.sets[set].count(length, trained);
        }
        self.report.share_out();
        Ok(self)
    }
}

/// `taken` of the `records`: all of them as often as possible, and the rest by the smallest hashes.
fn choose(records: Vec<u32>, taken: usize, seed: u64, shuffle: bool) -> Vec<u32> {
    let first = records.first().copied().unwrap_or(0);
    let mut ranked = records.clone();
    ranked.sort_by_cached_key(|&record| (random::at(seed, u64::from(record - first)), record));
    if shuffle {
        return ranked.iter().copied().cycle().take(taken).collect();
    }
    let (times, more) = (taken / records.len(), taken % records.len());
    let mut chosen = ranked[..more].to_vec();
    chosen.extend(
        records
            .iter()
            .flat_map(|&record| std::iter::repeat_n(record, times)),
    );
    chosen.sort_unstable();
    chosen
}

/// Merges lists so that every part of the result has each list in its proportion: element `k` of
/// `n` has its place at `(k + ½) / n`.
fn interleave(lists: &[Vec<u32>]) -> Vec<u32> {
    let mut places: Vec<(u32, u32)> = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    for (list, elements) in (0..).zip(lists) {
        places.extend((0..elements.len() as u32).map(|element| (list, element)));
    }
    let place = |&(list, element): &(u32, u32)| {
        let all = lists[list as usize].len() as u128;
        (2 * u128::from(element) + 1, all)
    };
    places.sort_unstable_by(|a, b| {
        let ((above_a, below_a), (above_b, below_b)) = (place(a), place(b));
        let order = (above_a * below_b).cmp(&(above_b * below_a));
        order.then(a.cmp(b))
    });
    places
        .into_iter()
        .map(|(list, element)| lists[list as usize][element as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_each_list_in_its_proportion() {
        let lists = [vec![0u32; 700], vec![1; 200], vec![2; 100], vec![3; 1]];
        let merged = interleave(&lists);
        assert_eq!(merged.len(), 1001);
        for end in 0..=merged.len() {
            for (list, elements) in (0u32..).zip(&lists) {
                let count = merged[..end].iter().filter(|&&name| name == list).count();
                let share = end as f64 * elements.len() as f64 / merged.len() as f64;
                assert!(
                    (count as f64 - share).abs() <= 1.5,
                    "{list}: {count} of {end}"
                );
            }
        }
    }

    #[test]
    fn all_are_taken_as_often_and_the_rest_by_the_seed() {
        let records: Vec<u32> = (10..30).collect();
        let count = |chosen: &[u32]| -> Vec<usize> {
            (10..30)
                .map(|r| chosen.iter().filter(|&&c| c == r).count())
                .collect()
        };
        for shuffle in [false, true] {
            let chosen = choose(records.clone(), 50, 7, shuffle);
            let counts = count(&chosen);
            assert_eq!(counts.iter().filter(|&&n| n == 3).count(), 10);
            assert_eq!(counts.iter().filter(|&&n| n == 2).count(), 10);
            assert_eq!(chosen, choose(records.clone(), 50, 7, shuffle));
            assert_ne!(counts, count(&choose(records.clone(), 50, 8, shuffle)));
            // A larger share holds the smaller one.
            let (few, more) = (
                choose(records.clone(), 5, 7, shuffle),
                choose(records.clone(), 9, 7, shuffle),
            );
            assert!(few.iter().all(|record| more.contains(record)));
        }
        let sorted = choose(records, 50, 7, false);
        assert!(sorted.is_sorted());
    }
}
