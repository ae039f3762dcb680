//! Treats sequences that do not fit, and records what happened to them.

use serde::{Deserialize, Serialize};

use crate::{Histogram, PackError, Piece, histogram::Counter};

/// Treatment of a sequence longer than the limit (here the capacity of a pack).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlong {
    /// Keep the beginning, as long as the limit allows.
    #[default]
    Truncate,
    /// Cut the sequence into pieces as long as the limit, and a remainder.
    Split,
    /// Leave the sequence out.
    Drop,
    /// Refuse all sequences.
    Error,
}

/// A sequence that is not packed in full and in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Index of the sequence.
    pub sequence: u32,
    /// Length before the cut.
    pub length: u32,
}

/// Every sequence that is not packed in full and in one piece, by reason, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cuts {
    /// Sequences dropped because they have no tokens.
    pub empty: Vec<u32>,
    /// Sequences dropped because they are longer than the capacity.
    pub dropped: Vec<Cut>,
    /// Sequences shortened to the capacity.
    pub truncated: Vec<Cut>,
    /// Sequences in several pieces; no token is lost.
    pub split: Vec<Cut>,
}

/// Numbers of the sequences in [`Cuts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CutCounts {
    /// Number of sequences without tokens.
    pub empty: u64,
    /// Number of sequences left out.
    pub dropped: u64,
    /// Number of sequences shortened.
    pub truncated: u64,
    /// Number of sequences in several pieces.
    pub split: u64,
    /// Number of tokens that are in no pack.
    pub lost_tokens: u64,
}

impl Cuts {
    /// Counts the cuts; `capacity` is the capacity of the packing.
    pub fn counts(&self, capacity: u64) -> CutCounts {
        let tokens = |cuts: &[Cut]| cuts.iter().map(|c| u64::from(c.length)).sum::<u64>();
        let truncated = self.truncated.len() as u64;
        CutCounts {
            empty: self.empty.len() as u64,
            dropped: self.dropped.len() as u64,
            truncated,
            split: self.split.len() as u64,
            lost_tokens: tokens(&self.dropped) + tokens(&self.truncated) - truncated * capacity,
        }
    }
}

impl Histogram {
    /// Returns the lengths that are left to pack, and the fate of the others.
    pub fn fit(&self, capacity: u64, overlong: Overlong) -> Result<(Self, CutCounts), PackError> {
        let mut cuts = CutCounts::default();
        let mut fitting = Vec::with_capacity(self.entries().len());
        for &(length, count) in self.entries() {
            let tokens = u64::from(length);
            if length == 0 {
                cuts.empty += count;
            } else if tokens <= capacity {
                fitting.push((length, count));
            } else {
                // Both casts are safe: `capacity < length`, and a length is a u32.
                match overlong {
                    Overlong::Truncate => {
                        cuts.truncated += count;
                        cuts.lost_tokens += count * (tokens - capacity);
                        fitting.push((capacity as u32, count));
                    }
                    Overlong::Split => {
                        cuts.split += count;
                        let whole = (tokens / capacity).checked_mul(count);
                        let whole = whole.ok_or(PackError::HistogramOverflow {
                            length: tokens,
                            count,
                        })?;
                        fitting.push((capacity as u32, whole));
                        fitting.extend(rest(tokens, capacity).map(|rest| (rest, count)));
                    }
                    Overlong::Drop => {
                        cuts.dropped += count;
                        cuts.lost_tokens += count * tokens;
                    }
                    Overlong::Error => {
                        return Err(PackError::OverlongCount {
                            length,
                            count,
                            capacity,
                        });
                    }
                }
            }
        }
        Ok((Self::from_pairs(fitting)?, cuts))
    }
}

fn rest(tokens: u64, capacity: u64) -> Option<u32> {
    let rest = tokens % capacity;
    (rest > 0).then_some(rest as u32)
}

/// Lengths cut into the pieces to pack. The first piece of a sequence has the number of the
/// sequence; a further piece has the number of sequences plus an index into `further`.
pub(crate) struct Pieces<'a> {
    lengths: &'a [u32],
    longest: u32,
    drops: bool,
    further: Vec<Piece>,
    pub(crate) histogram: Histogram,
    pub(crate) cuts: Cuts,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(
        lengths: &'a [u32],
        capacity: u64,
        overlong: Overlong,
    ) -> Result<Self, PackError> {
        check_count(lengths.len() as u64)?;
        let longest = u32::try_from(capacity).unwrap_or(u32::MAX);
        let mut counter = Counter::default();
        let mut cuts = Cuts::default();
        let mut further = Vec::new();
        for (index, &length) in lengths.iter().enumerate() {
            if length.wrapping_sub(1) < longest {
                counter.add(length);
                continue;
            }
            let sequence = index as u32;
            let cut = Cut { sequence, length };
            match overlong {
                _ if length == 0 => cuts.empty.push(sequence),
                Overlong::Drop => cuts.dropped.push(cut),
                Overlong::Truncate => {
                    cuts.truncated.push(cut);
                    counter.add(longest);
                }
                Overlong::Split => {
                    cuts.split.push(cut);
                    counter.add(longest);
                    let more = u64::from((length - 1) / longest);
                    check_cuts(further.len() as u64 + more)?;
                    check_count(lengths.len() as u64 + further.len() as u64 + more)?;
                    let mut start = longest;
                    while start < length {
                        let length = longest.min(length - start);
                        counter.add(length);
                        further.push(Piece {
                            sequence,
                            start,
                            length,
                        });
                        start += length;
                    }
                }
                Overlong::Error => {
                    return Err(PackError::Overlong {
                        index,
                        length,
                        capacity,
                    });
                }
            }
        }
        Ok(Self {
            lengths,
            longest,
            drops: overlong == Overlong::Drop,
            further,
            histogram: counter.finish()?,
            cuts,
        })
    }

    /// `(number, length)` of every piece, in ascending order.
    #[inline]
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u32, u32)> {
        let first = self
            .lengths
            .iter()
            .enumerate()
            .filter_map(|(index, &length)| {
                let packed = length > 0 && !(self.drops && length > self.longest);
                packed.then_some((index as u32, length.min(self.longest)))
            });
        let sequences = self.lengths.len();
        let further = self.further.iter().enumerate();
        first.chain(further.map(move |(index, p)| ((sequences + index) as u32, p.length)))
    }

    /// The piece with this number and length.
    #[inline]
    pub(crate) fn piece(&self, number: u32, length: u32) -> Piece {
        if (number as usize) < self.lengths.len() {
            Piece {
                sequence: number,
                start: 0,
                length,
            }
        } else {
            self.further[number as usize - self.lengths.len()]
        }
    }

    /// Every piece in the order of the input.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = Piece> {
        let mut further = self.further.iter().copied().peekable();
        let mut first = self.lengths.iter().enumerate();
        let mut last = u32::MAX;
        std::iter::from_fn(move || {
            if let Some(piece) = further.next_if(|piece| piece.sequence == last) {
                return Some(piece);
            }
            for (index, &length) in first.by_ref() {
                if length == 0 || (self.drops && length > self.longest) {
                    continue;
                }
                last = index as u32;
                return Some(Piece {
                    sequence: last,
                    start: 0,
                    length: length.min(self.longest),
                });
            }
            None
        })
    }
}

/// Largest number of cuts: a few GB of pieces. A few long sequences could ask for far more.
pub const MAX_CUTS: u64 = 1 << 26;

pub(crate) fn check_cuts(cuts: u64) -> Result<(), PackError> {
    match cuts <= MAX_CUTS {
        true => Ok(()),
        false => Err(PackError::TooManyCuts { cuts }),
    }
}

/// Piece numbers are `u32`, and [`u32::MAX`] is reserved.
fn check_count(pieces: u64) -> Result<(), PackError> {
    if pieces < u64::from(u32::MAX) {
        Ok(())
    } else {
        Err(PackError::TooManyPieces { pieces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [u32; 5] = [3, 0, 9, 4, 8];

    fn pieces(overlong: Overlong) -> Pieces<'static> {
        Pieces::new(&LENGTHS, 4, overlong).unwrap()
    }

    #[test]
    fn the_histogram_and_the_sequences_are_cut_alike() {
        let all = Histogram::from_lengths(LENGTHS).unwrap();
        for overlong in [Overlong::Truncate, Overlong::Split, Overlong::Drop] {
            let pieces = pieces(overlong);
            let (histogram, counts) = all.fit(4, overlong).unwrap();
            assert_eq!(pieces.histogram, histogram, "{overlong:?}");
            assert_eq!(pieces.cuts.counts(4), counts, "{overlong:?}");
            assert_eq!(all.tokens(), histogram.tokens() + counts.lost_tokens);
            let in_order = Histogram::from_lengths(pieces.in_order().map(|p| p.length));
            assert_eq!(in_order.unwrap(), histogram);
            let numbered = Histogram::from_lengths(pieces.numbered().map(|(_, l)| l));
            assert_eq!(numbered.unwrap(), histogram);
        }
    }

    #[test]
    fn split_pieces_follow_each_other() {
        let pieces: Vec<_> = pieces(Overlong::Split)
            .in_order()
            .map(|p| (p.sequence, p.start, p.length))
            .collect();
        let expected = [
            (0, 0, 3),
            (2, 0, 4),
            (2, 4, 4),
            (2, 8, 1),
            (3, 0, 4),
            (4, 0, 4),
            (4, 4, 4),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn an_error_names_the_first_sequence_that_does_not_fit() {
        assert_eq!(
            Pieces::new(&LENGTHS, 4, Overlong::Error).err(),
            Some(PackError::Overlong {
                index: 2,
                length: 9,
                capacity: 4
            })
        );
        let histogram = Histogram::from_lengths(LENGTHS).unwrap();
        assert_eq!(
            histogram.fit(4, Overlong::Error).err(),
            Some(PackError::OverlongCount {
                length: 8,
                count: 1,
                capacity: 4
            })
        );
    }
}
