//! The examples of a data set as units of packing.

use crate::{Dataset, Format, Shared};
use serde::{Deserialize, Serialize};
use std::fmt;
use tightrope_packing::{Part, Sequence, Units};

/// Kind of the examples of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExampleKind {
    /// Sequences with the tokens to predict.
    #[default]
    Sequences,
    /// Pairs of answers to one prompt: sequence `2i` is better than sequence `2i + 1`.
    Pairs,
    /// Single answers that are good or bad.
    Labelled,
}

impl ExampleKind {
    /// Kind of the records of a format.
    pub(crate) fn of(format: Format) -> Self {
        match format {
            Format::Preference => Self::Pairs,
            Format::Labelled => Self::Labelled,
            _ => Self::Sequences,
        }
    }
}

impl fmt::Display for ExampleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sequences => "neither pairs nor labelled answers",
            Self::Pairs => "pairs of answers",
            Self::Labelled => "labelled answers",
        })
    }
}

/// Examples that are packed whole: single sequences, pairs of answers that share a pack, or groups
/// of sequences that share their beginning.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    sequences: &'a [Sequence],
    kind: ExampleKind,
    /// Number of sequences in an example, unless beginnings are shared.
    parts: usize,
    desirable: &'a [bool],
    shared: Option<&'a Shared>,
    count: usize,
}

impl<'a> Examples<'a> {
    /// Pairs: sequence `2i` is better than sequence `2i + 1`.
    pub fn pairs(sequences: &'a [Sequence]) -> Self {
        Self {
            kind: ExampleKind::Pairs,
            parts: 2,
            count: sequences.len() / 2,
            ..sequences.into()
        }
    }

    /// Labelled answers, each of which is good (true) or bad.
    ///
    /// # Panics
    /// If there is not one label for each sequence.
    pub fn labelled(sequences: &'a [Sequence], desirable: &'a [bool]) -> Self {
        assert_eq!(
            sequences.len(),
            desirable.len(),
            "one label for each sequence"
        );
        Self {
            kind: ExampleKind::Labelled,
            desirable,
            ..sequences.into()
        }
    }

    /// Kind of the examples.
    pub fn kind(&self) -> ExampleKind {
        self.kind
    }

    /// Whether the examples are pairs.
    pub fn are_pairs(&self) -> bool {
        self.kind == ExampleKind::Pairs
    }

    /// Whether each labelled answer is good; empty for other kinds.
    pub fn desirable(&self) -> &'a [bool] {
        self.desirable
    }

    /// Whether examples cannot be cut, because their sequences belong together.
    pub fn are_whole(&self) -> bool {
        self.are_pairs() || self.shared.is_some()
    }

    /// The same examples if beginnings were shared in groups of at most `capacity` tokens or, if they
    /// are shared, if they were not: lengths for the packer.
    pub fn lengths_otherwise(&self, capacity: u64) -> Vec<u32> {
        let shared = match self.parts {
            _ if self.shared.is_some() => None,
            2 => Some(Shared::of_pairs(self.sequences, u64::MAX)),
            _ => Some(Shared::of_sequences(self.sequences, u64::MAX, capacity)),
        };
        let count = match &shared {
            None => self.sequences.len() / self.parts,
            Some(shared) => shared.count(),
        };
        let shared = shared.as_ref();
        let otherwise = Examples {
            shared,
            count,
            ..*self
        };
        otherwise.packed_lengths()
    }

    /// The shared beginnings, if they may be shared.
    pub fn shared(&self) -> Option<&'a Shared> {
        self.shared
    }

    /// All sequences, whole.
    pub fn sequences(&self) -> &'a [Sequence] {
        self.sequences
    }

    /// The first of these examples.
    #[must_use]
    pub fn first(self, examples: usize) -> Self {
        let count = examples.min(self.count);
        let end = match self.shared {
            None => count * self.parts,
            Some(_) => self.sequences.len(),
        };
        Self {
            count,
            sequences: &self.sequences[..end],
            desirable: &self.desirable[..end.min(self.desirable.len())],
            ..self
        }
    }

    /// Indices of the sequences of an example.
    pub fn members(&self, example: usize) -> impl Iterator<Item = usize> + 'a {
        let (own, shared) = match self.shared {
            None => (example * self.parts..(example + 1) * self.parts, &[][..]),
            Some(shared) => (0..0, shared.members(example)),
        };
        own.chain(shared.iter().map(|&index| index as usize))
    }

    /// The sequences of an example, whole.
    pub fn of(&self, example: usize) -> impl Iterator<Item = &'a Sequence> {
        let sequences = self.sequences;
        self.members(example).map(move |index| &sequences[index])
    }

    /// Index of the sequence that a part of an example belongs to; `None` for a beginning that its
    /// sequences share.
    pub fn sequence_of(&self, example: usize, part: usize) -> Option<usize> {
        match self.shared {
            None => self.members(example).nth(part),
            Some(shared) => shared.sequence_of(example, part),
        }
    }

    /// Length of each example for the packer. An example without a target changes neither loss nor
    /// gradient of the others: it counts as empty, and the packer leaves it out and counts it.
    pub fn packed_lengths(&self) -> Vec<u32> {
        let mut lengths = self.lengths();
        for (example, length) in lengths.iter_mut().enumerate() {
            if self
                .of(example)
                .all(|sequence| sequence.trained_tokens() == 0)
            {
                *length = 0;
            }
        }
        lengths
    }
}

impl<'a> From<&'a [Sequence]> for Examples<'a> {
    fn from(sequences: &'a [Sequence]) -> Self {
        Self {
            sequences,
            kind: ExampleKind::Sequences,
            parts: 1,
            desirable: &[],
            shared: None,
            count: sequences.len(),
        }
    }
}

impl<'a> From<&'a Vec<Sequence>> for Examples<'a> {
    fn from(sequences: &'a Vec<Sequence>) -> Self {
        sequences.as_slice().into()
    }
}

impl<'a> From<&'a Dataset> for Examples<'a> {
    fn from(data: &'a Dataset) -> Self {
        let examples = match data.kind {
            ExampleKind::Sequences => data.sequences.as_slice().into(),
            ExampleKind::Pairs => Self::pairs(&data.sequences),
            ExampleKind::Labelled => Self::labelled(&data.sequences, &data.desirable),
        };
        match &data.shared {
            None => examples,
            Some(shared) => Self {
                shared: Some(shared),
                count: shared.count(),
                ..examples
            },
        }
    }
}

impl Units for Examples<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn part(&self, unit: usize, part: usize) -> Option<Part<'_>> {
        if unit >= self.count {
            return None;
        }
        if let Some(shared) = self.shared {
            return shared.part(self.sequences, unit, part);
        }
        let sequence = &self.sequences[self.members(unit).nth(part)?];
        Some(Part {
            sequence,
            prefix: None,
        })
    }
}
