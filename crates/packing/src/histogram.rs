//! Number of sequences of each length, which is all that most algorithms need to know.

use std::collections::BTreeMap;

use crate::PackError;

/// Lengths below this are counted in a table, longer lengths in a map.
pub(crate) const DENSE: usize = 1 << 20;

/// Number of sequences by ascending length; the totals are known to fit 64 bits.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Histogram {
    entries: Vec<(u32, u64)>,
    sequences: u64,
    tokens: u64,
}

impl Histogram {
    /// Counts `lengths`; each is read once.
    pub fn from_lengths(lengths: impl IntoIterator<Item = u32>) -> Result<Self, PackError> {
        let mut counter = Counter::default();
        for length in lengths {
            counter.add(length);
        }
        counter.finish()
    }

    /// A histogram with `counts[i]` sequences of length `i + 1`.
    pub fn from_counts(counts: &[u64]) -> Result<Self, PackError> {
        let length = |index: usize, count: u64| {
            u32::try_from(index + 1).map_err(|_| PackError::HistogramOverflow {
                length: index as u64 + 1,
                count,
            })
        };
        let pairs = counts.iter().enumerate().filter(|&(_, &count)| count > 0);
        let pairs = pairs.map(|(index, &count)| Ok((length(index, count)?, count)));
        Self::from_pairs(pairs.collect::<Result<Vec<_>, PackError>>()?)
    }

    /// A histogram of `(length, count)` pairs in any order; counts of equal lengths add up.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u32, u64)>) -> Result<Self, PackError> {
        let mut entries: Vec<(u32, u64)> = pairs.into_iter().filter(|p| p.1 > 0).collect();
        entries.sort_unstable_by_key(|p| p.0);
        let mut histogram = Self::default();
        for (length, count) in entries {
            histogram.push(length, count)?;
        }
        Ok(histogram)
    }

    /// Adds a length that is not below the longest so far.
    pub(crate) fn push(&mut self, length: u32, count: u64) -> Result<(), PackError> {
        let overflow = PackError::HistogramOverflow {
            length: length.into(),
            count,
        };
        let tokens = count.checked_mul(length.into());
        let tokens = tokens.and_then(|t| t.checked_add(self.tokens));
        let sequences = count.checked_add(self.sequences);
        let (Some(tokens), Some(sequences)) = (tokens, sequences) else {
            return Err(overflow);
        };
        (self.tokens, self.sequences) = (tokens, sequences);
        match self.entries.last_mut() {
            Some(last) if last.0 == length => last.1 += count,
            _ => self.entries.push((length, count)),
        }
        Ok(())
    }

    /// `(length, count)` pairs by ascending length, with counts of at least 1.
    pub fn entries(&self) -> &[(u32, u64)] {
        &self.entries
    }
    /// Σ count.
    pub fn sequences(&self) -> u64 {
        self.sequences
    }
    /// Σ count · length.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }
    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// The longest length, 0 if there is none.
    pub fn max_length(&self) -> u32 {
        self.entries.last().map_or(0, |e| e.0)
    }
    /// Σ count · length²: the cost of attention, however the sequences are packed.
    pub fn attention_cost(&self) -> u128 {
        self.entries
            .iter()
            .map(|&(l, c)| u128::from(c) * u128::from(l).pow(2))
            .sum()
    }
}

/// Counts lengths one by one.
#[derive(Default)]
pub(crate) struct Counter {
    dense: Vec<u64>,
    sparse: BTreeMap<u32, u64>,
}

impl Counter {
    #[inline]
    pub(crate) fn add(&mut self, length: u32) {
        match self.dense.get_mut(length as usize) {
            Some(count) => *count += 1,
            None => self.add_beyond(length),
        }
    }

    #[cold]
    fn add_beyond(&mut self, length: u32) {
        let index = length as usize;
        if index < DENSE {
            self.dense.resize((index + 1).next_power_of_two(), 0);
            self.dense[index] += 1;
        } else {
            *self.sparse.entry(length).or_default() += 1;
        }
    }

    pub(crate) fn finish(self) -> Result<Histogram, PackError> {
        let mut histogram = Histogram::default();
        let dense = self.dense.into_iter().enumerate();
        for (length, count) in dense.filter(|&(_, count)| count > 0) {
            histogram.push(length as u32, count)?;
        }
        for (length, count) in self.sparse {
            histogram.push(length, count)?;
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ways_to_the_same_histogram() {
        let lengths = [3, 1, 3, 70, 2_000_000, 2_000_000, 1 << 20, (1 << 20) - 1];
        let counted = Histogram::from_lengths(lengths).unwrap();
        let pairs = lengths.iter().map(|&l| (l, 1));
        assert_eq!(counted, Histogram::from_pairs(pairs).unwrap());
        assert_eq!(counted.sequences(), 8);
        assert_eq!(
            counted.tokens(),
            lengths.iter().map(|&l| u64::from(l)).sum::<u64>()
        );
        assert_eq!(
            Histogram::from_counts(&[1, 0, 2]).unwrap().entries(),
            [(1, 1), (3, 2)]
        );
    }

    #[test]
    fn overflow_names_length_and_count() {
        let overflow = |length, count| Err(PackError::HistogramOverflow { length, count });
        assert_eq!(Histogram::from_counts(&[u64::MAX, 1]), overflow(2, 1));
        let half = u64::MAX / 2 + 1;
        assert_eq!(Histogram::from_pairs([(2, half)]), overflow(2, half));
        assert_eq!(
            Histogram::from_pairs([(0, u64::MAX), (0, 1)]),
            overflow(0, 1)
        );
        assert!(Histogram::from_pairs([(0, u64::MAX)]).is_ok());
    }
}
