//! Units that stay together in a pack: a sequence, or several parts that lie side by side.

use crate::{SegmentError, Sequence};
use std::borrow::Cow;

/// A sequence of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Tokens and targets of the part.
    pub sequence: Cow<'a, Sequence>,
    /// Index of the earlier part of the unit that this part continues: it sees all tokens of that
    /// part, and its positions follow. A token whose target differs between the parts that continue
    /// another is repeated in each of them.
    pub prefix: Option<usize>,
}

/// Units of one or more parts, which lie side by side in one pack. A packer sees only the length of
/// a unit, which is the sum of its parts: its "sequence" is a unit.
///
/// Sequences are units of one part. A unit of several parts is not cut.
pub trait Units {
    /// Number of units.
    fn count(&self) -> usize;

    /// Length of each unit.
    fn lengths(&self) -> Vec<u32>;

    /// Parts of a unit; none beyond the last unit.
    ///
    /// # Errors
    /// If the unit cannot be read from where it is stored.
    fn parts(&self, unit: usize) -> Result<Vec<Part<'_>>, SegmentError>;
}

impl<T: AsRef<[Sequence]> + ?Sized> Units for T {
    fn count(&self) -> usize {
        self.as_ref().len()
    }

    fn lengths(&self) -> Vec<u32> {
        let lengths = self.as_ref().iter().map(Sequence::len);
        lengths.map(saturated).collect()
    }

    fn parts(&self, unit: usize) -> Result<Vec<Part<'_>>, SegmentError> {
        let sequence = self.as_ref().get(unit).map(|sequence| Part {
            sequence: Cow::Borrowed(sequence),
            prefix: None,
        });
        Ok(sequence.into_iter().collect())
    }
}

/// A length that no capacity allows, if it is too large for 32 bits.
fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Units of any number of parts.
///
/// ```
/// use tightrope_packing::{Batch, Groups, Piece, Sequence, Units};
/// let sequence = |tokens: [u32; 2]| Sequence::from_labels(tokens.to_vec(), &[-100, tokens[1].into()]);
/// // A prompt `5 6 7`, and two answers that see it but not each other.
/// let prompt = Sequence::from_labels(vec![5, 6], &[-100, -100])?;
/// let mut pairs = Groups::default();
/// pairs.push([(prompt, None), (sequence([7, 8])?, Some(0)), (sequence([7, 9])?, Some(0))])?;
/// assert_eq!(pairs.lengths(), [6]);
/// let batch = Batch::packed(&pairs, &[Piece { sequence: 0, start: 0, length: 6 }])?;
/// assert_eq!(batch.segments().positions(), [0, 1, 2, 3, 2, 3]);
/// assert_eq!(batch.targets(), [-100, -100, 8, -100, 9, -100]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    parts: Vec<(Sequence, Option<usize>)>,
    ends: Vec<usize>,
}

impl Groups {
    /// Adds a unit of parts, each with the index of the earlier part that it continues.
    ///
    /// # Errors
    /// If a part continues a part that is not before it, or that continues another part itself.
    pub fn push(
        &mut self,
        parts: impl IntoIterator<Item = (Sequence, Option<usize>)>,
    ) -> Result<(), SegmentError> {
        let start = self.parts.len();
        self.parts.extend(parts);
        let unit = &self.parts[start..];
        for (index, &(_, prefix)) in unit.iter().enumerate() {
            let whole = |prefix: usize| prefix < index && unit[prefix].1.is_none();
            if !prefix.is_none_or(whole) {
                self.parts.truncate(start);
                return Err(SegmentError::Prefix { index });
            }
        }
        self.ends.push(self.parts.len());
        Ok(())
    }
}

impl Groups {
    /// Parts of a unit, each with its prefix.
    fn unit(&self, unit: usize) -> &[(Sequence, Option<usize>)] {
        let Some(&end) = self.ends.get(unit) else {
            return &[];
        };
        let start = unit.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.parts[start..end]
    }
}

impl Units for Groups {
    fn count(&self) -> usize {
        self.ends.len()
    }

    fn lengths(&self) -> Vec<u32> {
        let tokens = |unit| self.unit(unit).iter().map(|(sequence, _)| sequence.len());
        let units = 0..self.count();
        units.map(|unit| saturated(tokens(unit).sum())).collect()
    }

    fn parts(&self, unit: usize) -> Result<Vec<Part<'_>>, SegmentError> {
        let parts = self.unit(unit).iter().map(|(sequence, prefix)| Part {
            sequence: Cow::Borrowed(sequence),
            prefix: *prefix,
        });
        Ok(parts.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Piece};

    fn sequence(tokens: &[u32]) -> Sequence {
        let labels: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
        Sequence::from_labels(tokens.to_vec(), &labels).unwrap()
    }

    fn groups() -> Groups {
        let mut groups = Groups::default();
        groups.push([(sequence(&[1, 2]), None)]).unwrap();
        let pair = [
            (sequence(&[3]), None),
            (sequence(&[4, 5]), Some(0)),
            (sequence(&[6]), Some(0)),
        ];
        groups.push(pair).unwrap();
        groups
    }

    #[test]
    fn parts_lie_side_by_side_and_continue_their_prefix() {
        let groups = groups();
        assert_eq!((groups.count(), groups.lengths()), (2, vec![2, 4]));
        let pieces = [1, 0].map(|unit| Piece {
            sequence: unit,
            start: 0,
            length: [2, 4][unit as usize],
        });
        let batch = Batch::packed(&groups, &pieces).unwrap();
        assert_eq!(batch.tokens(), [3, 4, 5, 6, 1, 2]);
        assert_eq!(batch.segments().positions(), [0, 1, 2, 1, 0, 1]);
        let seen: Vec<_> = batch
            .segments()
            .as_slice()
            .iter()
            .map(|s| (s.sequence, s.part, s.prefix))
            .collect();
        let (pair, alone) = (Some(1), Some(0));
        assert_eq!(
            seen,
            [
                (pair, 0, None),
                (pair, 1, Some(0)),
                (pair, 2, Some(0)),
                (alone, 0, None)
            ]
        );
        let sequences: Vec<_> = batch.segments().sequences().collect();
        let found = sequences
            .iter()
            .map(|s| (s.unit, s.place, s.tokens().collect::<Vec<_>>()));
        let expected = [
            (1, 0, vec![0, 1, 2]),
            (1, 1, vec![0, 3]),
            (0, 0, vec![4, 5]),
        ];
        assert!(found.eq(expected));
        assert_eq!(sequences[1].length(), 2);
        // 1 + (3² − 1²) + (2² − 1²) + 2².
        assert_eq!(batch.segments().attention_cost(), 1 + 8 + 3 + 4);
    }

    #[test]
    fn sequences_are_units_of_one_part() {
        let all = [sequence(&[1, 2]), sequence(&[3])];
        let mut groups = Groups::default();
        for sequence in all.clone() {
            groups.push([(sequence, None)]).unwrap();
        }
        assert_eq!(groups.lengths(), all.lengths());
        let pieces = [1, 0].map(|unit| Piece {
            sequence: unit,
            start: 0,
            length: all[unit as usize].len() as u32,
        });
        let batch = Batch::packed(&groups, &pieces);
        assert_eq!(batch, Batch::packed(&all, &pieces));
        let padded = Batch::padded(&groups, &pieces, 9);
        assert_eq!(padded, Batch::padded(&all, &pieces, 9));
    }

    #[test]
    fn what_no_row_can_show_is_refused() {
        let mut groups = groups();
        for prefixes in [
            [Some(0), None, None],
            [None, Some(0), Some(1)],
            [None, Some(2), None],
        ] {
            let parts = prefixes.map(|prefix| (sequence(&[1]), prefix));
            assert!(matches!(
                groups.push(parts),
                Err(SegmentError::Prefix { .. })
            ));
        }
        assert_eq!(groups, super::tests::groups());
        for (start, length) in [(0, 3), (1, 3), (1, 4)] {
            let cut = Piece {
                sequence: 1,
                start,
                length,
            };
            let error = Batch::packed(&groups, &[cut]);
            assert_eq!(error, Err(SegmentError::CutUnit { unit: 1 }));
        }
    }
}
