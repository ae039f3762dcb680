//! The examples of a data set as units of packing.

use crate::{Dataset, Format};
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

/// Examples that are packed whole: single sequences, or pairs of answers that share a pack.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    sequences: &'a [Sequence],
    kind: ExampleKind,
    /// Number of sequences in an example.
    parts: usize,
    desirable: &'a [bool],
}

impl<'a> Examples<'a> {
    /// Pairs: sequence `2i` is better than sequence `2i + 1`.
    pub fn pairs(sequences: &'a [Sequence]) -> Self {
        Self {
            kind: ExampleKind::Pairs,
            parts: 2,
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

    /// All sequences; those of an example are neighbours.
    pub fn sequences(&self) -> &'a [Sequence] {
        self.sequences
    }

    /// The first of these examples.
    #[must_use]
    pub fn first(self, examples: usize) -> Self {
        let end = examples
            .saturating_mul(self.parts)
            .min(self.sequences.len());
        Self {
            sequences: &self.sequences[..end],
            desirable: &self.desirable[..end.min(self.desirable.len())],
            ..self
        }
    }

    /// The sequences of an example.
    pub fn of(&self, example: usize) -> &'a [Sequence] {
        &self.sequences[example * self.parts..][..self.parts]
    }

    /// Index of the first sequence of an example.
    pub fn start(&self, example: usize) -> usize {
        example * self.parts
    }

    /// Length of each example for the packer. An example without a target changes neither loss nor
    /// gradient of the others: it counts as empty, and the packer leaves it out and counts it.
    pub fn packed_lengths(&self) -> Vec<u32> {
        let length = |example: &[Sequence]| {
            let tokens: usize = example.iter().map(Sequence::len).sum();
            match example
                .iter()
                .all(|sequence| sequence.trained_tokens() == 0)
            {
                true => 0,
                false => u32::try_from(tokens).unwrap_or(u32::MAX),
            }
        };
        self.sequences
            .chunks_exact(self.parts)
            .map(length)
            .collect()
    }
}

impl<'a> From<&'a [Sequence]> for Examples<'a> {
    fn from(sequences: &'a [Sequence]) -> Self {
        Self {
            sequences,
            kind: ExampleKind::Sequences,
            parts: 1,
            desirable: &[],
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
        match data.kind {
            ExampleKind::Sequences => data.sequences.as_slice().into(),
            ExampleKind::Pairs => Self::pairs(&data.sequences),
            ExampleKind::Labelled => Self::labelled(&data.sequences, &data.desirable),
        }
    }
}

impl Units for Examples<'_> {
    fn count(&self) -> usize {
        self.sequences.len() / self.parts
    }

    fn part(&self, unit: usize, part: usize) -> Option<Part<'_>> {
        let index = unit.checked_mul(self.parts)?.checked_add(part)?;
        let sequence = self.sequences.get(index).filter(|_| part < self.parts)?;
        Some(Part {
            sequence,
            prefix: None,
        })
    }
}
