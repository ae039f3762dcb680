//! Which tokens see which: the only description of the boundaries inside a row of tokens.

use std::ops::Range;

/// A run of tokens that see only each other, and the segment that it continues, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the first token.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub length: usize,
    /// Position (for rotary embeddings) of the first token.
    pub first_position: u32,
    /// Index of the sequence, or unit, in the data set; `None` = padding.
    pub sequence: Option<usize>,
    /// Index of the part of the unit; 0 for a sequence.
    pub part: usize,
    /// Index of the earlier segment of the unit that this one continues: all its tokens see all of
    /// that segment, and its positions follow.
    pub prefix: Option<usize>,
}

impl Segment {
    /// Tokens that see only each other, with positions from 0.
    pub fn alone(start: usize, length: usize, sequence: Option<usize>) -> Self {
        Self {
            start,
            length,
            first_position: 0,
            sequence,
            part: 0,
            prefix: None,
        }
    }

    /// Its tokens in the row.
    pub fn tokens(&self) -> Range<usize> {
        self.start..self.start + self.length
    }

    /// Position after the last token.
    pub fn end_position(&self) -> u32 {
        self.first_position + self.length as u32
    }
}

/// A sequence of a row: a segment that no other one continues, and the one that it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSequence<'a> {
    /// Index of the sequence, or unit, in the data set.
    pub unit: usize,
    /// Place among the sequences of the unit, from 0.
    pub place: usize,
    /// The beginning that it shares with other sequences of the unit, if it does.
    pub prefix: Option<&'a Segment>,
    /// The rest of it.
    pub own: &'a Segment,
}

impl RowSequence<'_> {
    /// Number of tokens.
    pub fn length(&self) -> usize {
        self.prefix.map_or(0, |prefix| prefix.length) + self.own.length
    }

    /// Places of its tokens in the row, in order.
    pub fn tokens(&self) -> impl Iterator<Item = usize> + Clone {
        let prefix = self.prefix.map_or(0..0, Segment::tokens);
        prefix.chain(self.own.tokens())
    }
}

/// Segments that cover `0..tokens` without gap or overlap; checked once, here.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Segments {
    segments: Vec<Segment>,
}

/// Segments that do not describe a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment has no tokens.
    #[error("segment {index} has no tokens")]
    Empty {
        /// Index of the segment.
        index: usize,
    },
    /// There is a gap or an overlap.
    #[error("segment {index} starts at {start}, expected {expected}")]
    NotContiguous {
        /// Index of the segment.
        index: usize,
        /// Start of the segment.
        start: usize,
        /// End of the segment before it.
        expected: usize,
    },
    /// Cumulative lengths do not start with 0.
    #[error("cumulative lengths start with {first:?}, expected 0")]
    FirstOffset {
        /// The first value, if there is one.
        first: Option<u32>,
    },
    /// Cumulative lengths do not increase.
    #[error("cumulative length {index} is {value}, not more than {previous} before it")]
    Offset {
        /// Index of the offset.
        index: usize,
        /// Value of the offset.
        value: u32,
        /// Value of the offset before it.
        previous: u32,
    },
    /// A position neither follows the one before it nor starts a segment.
    #[error("position {position} of token {index} is neither 0 nor {expected}")]
    Position {
        /// Index of the token.
        index: usize,
        /// Position of the token.
        position: u32,
        /// Position that would continue the segment.
        expected: u64,
    },
    /// The prefix of a segment is not before it, has a prefix itself, belongs to another unit, or
    /// ends at another position than the one where the segment begins.
    #[error("segment {index} does not continue where its prefix, an earlier whole segment, ends")]
    Prefix {
        /// Index of the segment.
        index: usize,
    },
    /// A piece cuts a unit of several parts.
    #[error("unit {unit} has several parts, and cannot be cut")]
    CutUnit {
        /// Index of the unit.
        unit: usize,
    },
    /// A unit cannot be read from where it is stored.
    #[error("{why}")]
    Unreadable {
        /// Index of the unit.
        unit: usize,
        /// The place and the reason.
        why: String,
    },
    /// The number of tokens overflows.
    #[error("segment {index} ends beyond the largest index")]
    TooLong {
        /// Index of the segment.
        index: usize,
    },
}

impl Segments {
    /// Checks that `segments` are non-empty and follow each other from 0, and that each prefix lies
    /// before its segment.
    pub fn new(segments: Vec<Segment>) -> Result<Self, SegmentError> {
        let mut expected = 0usize;
        for (index, segment) in segments.iter().enumerate() {
            if segment.length == 0 {
                return Err(SegmentError::Empty { index });
            }
            if segment.start != expected {
                return Err(SegmentError::NotContiguous {
                    index,
                    start: segment.start,
                    expected,
                });
            }
            expected = expected
                .checked_add(segment.length)
                .filter(|&end| u32::try_from(end).is_ok())
                .ok_or(SegmentError::TooLong { index })?;
            let continues = |prefix: usize| {
                let before = segments[..index].get(prefix);
                before.is_some_and(|before| {
                    let same = segment.sequence.is_some() && before.sequence == segment.sequence;
                    let place =
                        before.prefix.is_none() && segment.first_position == before.end_position();
                    same && place
                })
            };
            if !segment.prefix.is_none_or(continues) {
                return Err(SegmentError::Prefix { index });
            }
        }
        Ok(Self { segments })
    }

    /// Segments from `[0, end of first, …, tokens]`; segment `i` holds sequence `i`, with positions
    /// from 0.
    pub fn from_cu_seqlens(cu_seqlens: &[u32]) -> Result<Self, SegmentError> {
        let first = cu_seqlens.first().copied();
        if first != Some(0) {
            return Err(SegmentError::FirstOffset { first });
        }
        let mut segments = Vec::with_capacity(cu_seqlens.len() - 1);
        for (index, pair) in cu_seqlens.windows(2).enumerate() {
            let (previous, value) = (pair[0], pair[1]);
            if value <= previous {
                return Err(SegmentError::Offset {
                    index: index + 1,
                    value,
                    previous,
                });
            }
            let length = (value - previous) as usize;
            segments.push(Segment::alone(previous as usize, length, Some(index)));
        }
        Self::new(segments)
    }

    /// Segments from the position of every token: each 0 starts a segment, and every other position
    /// follows the one before it. Segment `i` holds sequence `i`.
    pub fn from_position_ids(positions: &[u32]) -> Result<Self, SegmentError> {
        let mut segments: Vec<Segment> = Vec::new();
        for (index, &position) in positions.iter().enumerate() {
            let sequence = Some(segments.len());
            match segments.last_mut() {
                Some(last) if position != 0 => {
                    if position as usize != last.length {
                        return Err(SegmentError::Position {
                            index,
                            position,
                            expected: last.length as u64,
                        });
                    }
                    last.length += 1;
                }
                None if position != 0 => {
                    return Err(SegmentError::Position {
                        index,
                        position,
                        expected: 0,
                    });
                }
                _ => segments.push(Segment::alone(index, 1, sequence)),
            }
        }
        Self::new(segments)
    }

    /// Appends `length` tokens of padding as a segment of its own.
    pub fn with_padding(mut self, length: usize) -> Result<Self, SegmentError> {
        if length > 0 {
            self.segments
                .push(Segment::alone(self.tokens(), length, None));
        }
        Self::new(self.segments)
    }

    /// The segments in order.
    pub fn as_slice(&self) -> &[Segment] {
        &self.segments
    }
    /// The sequences of the row, in order, without padding.
    pub fn sequences(&self) -> impl Iterator<Item = RowSequence<'_>> {
        let mut continued = vec![false; self.segments.len()];
        for prefix in self.segments.iter().filter_map(|segment| segment.prefix) {
            continued[prefix] = true;
        }
        let mut next = 0;
        let segments = self.segments.iter().zip(continued);
        segments.filter_map(move |(own, continued)| {
            let unit = own.sequence?;
            if own.part == 0 {
                next = 0;
            }
            if continued {
                return None;
            }
            let place = next;
            next += 1;
            Some(RowSequence {
                unit,
                place,
                prefix: own.prefix.map(|prefix| &self.segments[prefix]),
                own,
            })
        })
    }
    /// Number of tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.segments.last().map_or(0, |s| s.start + s.length)
    }
    /// Number of tokens in padding segments.
    pub fn padding_tokens(&self) -> usize {
        self.segments
            .iter()
            .filter(|s| s.sequence.is_none())
            .map(|s| s.length)
            .sum()
    }
    /// Length of the longest segment.
    pub fn max_length(&self) -> usize {
        self.segments.iter().map(|s| s.length).max().unwrap_or(0)
    }
    /// `[0, end of first, …, tokens]`, as variable-length attention kernels take it. Prefixes are
    /// not in it.
    pub fn cu_seqlens(&self) -> Vec<u32> {
        let ends = self.segments.iter().map(|s| (s.start + s.length) as u32);
        std::iter::once(0).chain(ends).collect()
    }
    /// The position of every token.
    pub fn positions(&self) -> Vec<u32> {
        self.segments
            .iter()
            .flat_map(|s| s.first_position..s.end_position())
            .collect()
    }
    /// Cost of attention: Σ length². A segment with a prefix costs the difference between both
    /// together and the prefix alone.
    pub fn attention_cost(&self) -> u128 {
        let cost = |segment: &Segment| {
            let seen = segment
                .prefix
                .map_or(0, |prefix| self.segments[prefix].length);
            let (length, seen) = (segment.length as u128, seen as u128);
            length * (length + 2 * seen)
        };
        self.segments.iter().map(cost).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: usize, length: usize) -> Segment {
        Segment::alone(start, length, None)
    }

    #[test]
    fn a_prefix_is_a_whole_segment_of_the_unit_that_ends_where_its_readers_begin() {
        let whole = Segment::alone(0, 2, Some(5));
        let reader = |start, prefix, first_position, sequence| Segment {
            prefix: Some(prefix),
            first_position,
            ..Segment::alone(start, 3, Some(sequence))
        };
        let good = [whole, reader(2, 0, 2, 5), reader(5, 0, 2, 5)];
        assert!(Segments::new(good.to_vec()).is_ok());
        for bad in [
            reader(5, 2, 2, 5),
            reader(5, 3, 2, 5),
            reader(5, 1, 5, 5),
            reader(5, 0, 0, 5),
            reader(5, 0, 2, 4),
        ] {
            let error = Segments::new(vec![good[0], good[1], bad]);
            assert_eq!(error, Err(SegmentError::Prefix { index: 2 }));
        }
    }

    #[test]
    fn what_is_not_a_row_is_refused() {
        use SegmentError::{Empty, NotContiguous, TooLong};
        let new = |segments: &[Segment]| Segments::new(segments.to_vec()).unwrap_err();
        assert_eq!(new(&[segment(0, 2), segment(2, 0)]), Empty { index: 1 });
        let (index, expected) = (1, 2);
        for start in [1, 3] {
            let error = new(&[segment(0, 2), segment(start, 1)]);
            assert_eq!(
                error,
                NotContiguous {
                    index,
                    start,
                    expected
                }
            );
        }
        let most = u32::MAX as usize;
        assert!(Segments::new(vec![segment(0, most)]).is_ok());
        assert_eq!(
            new(&[segment(0, most), segment(most, 1)]),
            TooLong { index }
        );
        assert_eq!(new(&[segment(0, usize::MAX)]), TooLong { index: 0 });
    }

    #[test]
    fn bad_offsets_and_positions_are_named() {
        use SegmentError::{FirstOffset, Offset, Position};
        let offsets = |o: &[u32]| Segments::from_cu_seqlens(o).unwrap_err();
        assert_eq!(offsets(&[]), FirstOffset { first: None });
        assert_eq!(offsets(&[1, 2]), FirstOffset { first: Some(1) });
        for value in [3, 2] {
            let expected = Offset {
                index: 2,
                value,
                previous: 3,
            };
            assert_eq!(offsets(&[0, 3, value]), expected);
        }
        let positions = |p: &[u32]| Segments::from_position_ids(p).unwrap_err();
        let at = |index, position, expected| Position {
            index,
            position,
            expected,
        };
        assert_eq!(positions(&[1]), at(0, 1, 0));
        assert_eq!(positions(&[0, 1, 3]), at(2, 3, 2));
        assert_eq!(positions(&[0, 0, 2]), at(2, 2, 1));
    }

    #[test]
    fn padding_is_a_segment_of_its_own() {
        let segments = Segments::from_cu_seqlens(&[0, 3, 5]).unwrap();
        let padded = segments.clone().with_padding(4).unwrap();
        assert_eq!((padded.tokens(), padded.padding_tokens()), (9, 4));
        assert_eq!(padded.as_slice()[..2], *segments.as_slice());
        assert_eq!(padded.positions(), [0, 1, 2, 0, 1, 0, 1, 2, 3]);
        assert_eq!(padded.attention_cost(), 9 + 4 + 16);
        assert_eq!(padded.max_length(), 4);
        assert_eq!(segments.clone().with_padding(0).unwrap(), segments);
    }
}
