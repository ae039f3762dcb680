//! The examples of a data set as units of packing.

use crate::{DataError, Dataset, Format, Sequences, Shared};
use serde::{Deserialize, Serialize};
use std::fmt;
use tightrope_packing::{Part, SegmentError, Units};

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
    sequences: &'a Sequences,
    kind: ExampleKind,
    /// Number of sequences in an example, unless beginnings are shared.
    parts: usize,
    desirable: &'a [bool],
    shared: Option<&'a Shared>,
    count: usize,
}

impl<'a> Examples<'a> {
    /// Pairs: sequence `2i` is better than sequence `2i + 1`.
    pub fn pairs(sequences: &'a Sequences) -> Self {
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
    pub fn labelled(sequences: &'a Sequences, desirable: &'a [bool]) -> Self {
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
    pub fn lengths_otherwise(&self, capacity: u64) -> Result<Vec<u32>, DataError> {
        let shared = match self.parts {
            _ if self.shared.is_some() => None,
            2 => Some(Shared::of_pairs(self.sequences, u64::MAX)?),
            _ => Some(Shared::of_sequences(self.sequences, u64::MAX, capacity)?),
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
        Ok(otherwise.packed_lengths())
    }

    /// The shared beginnings, if they may be shared.
    pub fn shared(&self) -> Option<&'a Shared> {
        self.shared
    }

    /// All sequences, whole.
    pub fn sequences(&self) -> &'a Sequences {
        self.sequences
    }

    /// The first of these examples.
    #[must_use]
    pub fn first(self, examples: usize) -> Self {
        let count = examples.min(self.count);
        Self { count, ..self }
    }

    /// Indices of the sequences of an example.
    pub fn members(&self, example: usize) -> impl Iterator<Item = usize> + 'a {
        let (own, shared) = match self.shared {
            None => (example * self.parts..(example + 1) * self.parts, &[][..]),
            Some(shared) => (0..0, shared.members(example)),
        };
        own.chain(shared.iter().map(|&index| index as usize))
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
            let trained = |index| self.sequences.trained_tokens(index);
            if self.members(example).all(|index| trained(index) == 0) {
                *length = 0;
            }
        }
        lengths
    }
}

impl<'a> From<&'a Sequences> for Examples<'a> {
    fn from(sequences: &'a Sequences) -> Self {
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

impl<'a> From<&'a Dataset> for Examples<'a> {
    fn from(data: &'a Dataset) -> Self {
        let examples = match data.kind {
            ExampleKind::Sequences => (&data.sequences).into(),
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

    fn lengths(&self) -> Vec<u32> {
        let length = |example| match self.shared {
            Some(shared) => shared.length(self.sequences, example),
            None => {
                let members = self.members(example);
                members.map(|index| self.sequences.length(index)).sum()
            }
        };
        let lengths = (0..self.count).map(length);
        lengths
            .map(|length| u32::try_from(length).unwrap_or(u32::MAX))
            .collect()
    }

    fn parts(&self, unit: usize) -> Result<Vec<Part<'_>>, SegmentError> {
        if unit >= self.count {
            return Ok(Vec::new());
        }
        if let Some(shared) = self.shared {
            return shared.parts(self.sequences, unit);
        }
        let members = self.members(unit);
        let parts = members.map(|index| self.sequences.parts(index));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.concat())
    }
}
