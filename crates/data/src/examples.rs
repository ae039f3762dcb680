//! The examples of a data set as units of packing.

use crate::Dataset;
use tightrope_packing::{Part, Sequence, Units};

/// Examples that are packed whole: single sequences, or pairs of answers that share a pack.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    sequences: &'a [Sequence],
    /// Number of sequences in an example.
    parts: usize,
}

impl<'a> Examples<'a> {
    /// Pairs: sequence `2i` is better than sequence `2i + 1`.
    pub fn pairs(sequences: &'a [Sequence]) -> Self {
        Self {
            sequences,
            parts: 2,
        }
    }

    /// Whether the examples are pairs.
    pub fn are_pairs(&self) -> bool {
        self.parts == 2
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
            parts: 1,
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
        match data.pairs {
            true => Self::pairs(&data.sequences),
            false => data.sequences.as_slice().into(),
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
