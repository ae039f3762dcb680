//! The input of one forward pass.

use serde::{Deserialize, Serialize};
use std::ops::Range;

use crate::{IGNORED, Segment, SegmentError, Segments, Sequence, Units};

/// A contiguous piece of a sequence (or all of it), or a unit. Serialized as `[sequence, start,
/// length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 3]", into = "[u32; 3]")]
pub struct Piece {
    /// Index of the sequence, or unit, in the data set.
    pub sequence: u32,
    /// Index of the first token of the piece.
    pub start: u32,
    /// Number of tokens.
    pub length: u32,
}

impl From<[u32; 3]> for Piece {
    fn from([sequence, start, length]: [u32; 3]) -> Self {
        Self {
            sequence,
            start,
            length,
        }
    }
}

impl From<Piece> for [u32; 3] {
    fn from(piece: Piece) -> Self {
        [piece.sequence, piece.start, piece.length]
    }
}

/// A row of tokens with targets, positions and segments.
///
/// Packing, padding and batching by length differ only in how they build a batch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    tokens: Vec<u32>,
    targets: Vec<i32>,
    segments: Segments,
}

impl Batch {
    /// Concatenates pieces without gaps.
    ///
    /// The unit of each piece must exist and be long enough; a target outside its piece is ignored.
    ///
    /// # Errors
    /// If a piece cuts a unit of several parts, or a unit cannot be read.
    ///
    /// # Panics
    /// If a piece names tokens that its unit does not have.
    pub fn packed(units: &(impl Units + ?Sized), pieces: &[Piece]) -> Result<Self, SegmentError> {
        let mut builder = Builder::default();
        for piece in pieces {
            builder.push(units, piece)?;
        }
        builder.finish()
    }

    /// Makes one row per piece, padded to the longest piece with `padding_token`; padding is a
    /// segment of its own with ignored targets.
    ///
    /// # Errors
    /// If a piece cuts a unit of several parts, or a unit cannot be read.
    ///
    /// # Panics
    /// If a piece names tokens that its unit does not have.
    pub fn padded(
        units: &(impl Units + ?Sized),
        pieces: &[Piece],
        padding_token: u32,
    ) -> Result<Self, SegmentError> {
        let longest = pieces.iter().map(|p| p.length).max().unwrap_or(0);
        let mut builder = Builder::default();
        for piece in pieces {
            builder.push(units, piece)?;
            builder.pad((longest - piece.length) as usize, padding_token);
        }
        builder.finish()
    }

    /// Token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// Id to predict after each token, or [`IGNORED`].
    pub fn targets(&self) -> &[i32] {
        &self.targets
    }
    /// The same tokens with other targets.
    ///
    /// # Panics
    /// If there is not one target for each token.
    #[must_use]
    pub fn with_targets(&self, targets: Vec<i32>) -> Self {
        assert_eq!(
            targets.len(),
            self.tokens.len(),
            "one target for each token"
        );
        Self {
            tokens: self.tokens.clone(),
            targets,
            segments: self.segments.clone(),
        }
    }
    /// Other tokens with the same targets.
    ///
    /// # Panics
    /// If there is not one token for each target.
    #[must_use]
    pub fn with_tokens(&self, tokens: Vec<u32>) -> Self {
        assert_eq!(
            tokens.len(),
            self.targets.len(),
            "one token for each target"
        );
        Self {
            tokens,
            targets: self.targets.clone(),
            segments: self.segments.clone(),
        }
    }
    /// Boundaries between the sequences.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }
    /// Number of tokens, padding included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
    /// Number of positions with a target.
    pub fn trained_tokens(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORED).count()
    }
    /// Number of tokens that belong to sequences.
    pub fn real_tokens(&self) -> usize {
        self.len() - self.segments.padding_tokens()
    }
}

#[derive(Default)]
struct Builder {
    tokens: Vec<u32>,
    targets: Vec<i32>,
    segments: Vec<Segment>,
}

impl Builder {
    fn push(&mut self, units: &(impl Units + ?Sized), piece: &Piece) -> Result<(), SegmentError> {
        let unit = piece.sequence as usize;
        let range = piece.start as usize..piece.start as usize + piece.length as usize;
        let parts = units.parts(unit)?;
        // Only a unit with a single part is cut.
        let is_group = parts.len() > 1;
        let (first, mut length) = (self.segments.len(), 0);
        for (index, part) in parts.iter().enumerate() {
            let range = match is_group {
                false => range.clone(),
                true => 0..part.sequence.len(),
            };
            length += range.len();
            let prefix = part.prefix.map(|prefix| first + prefix);
            let end = |prefix: usize| self.segments[prefix].end_position();
            self.segments.push(Segment {
                start: self.tokens.len(),
                length: range.len(),
                first_position: prefix.map_or(0, end),
                sequence: Some(unit),
                part: index,
                prefix,
            });
            self.extend(&part.sequence, range);
        }
        match length == range.len() && !(is_group && range.start > 0) {
            true => Ok(()),
            false => Err(SegmentError::CutUnit { unit }),
        }
    }

    fn extend(&mut self, sequence: &Sequence, range: Range<usize>) {
        self.tokens
            .extend_from_slice(&sequence.tokens()[range.clone()]);
        self.targets.extend_from_slice(&sequence.targets()[range]);
        if let Some(last) = self.targets.last_mut() {
            *last = IGNORED;
        }
    }

    fn pad(&mut self, length: usize, token: u32) {
        if length > 0 {
            let padding = Segment::alone(self.tokens.len(), length, None);
            self.segments.push(padding);
            self.tokens.resize(self.tokens.len() + length, token);
            self.targets.resize(self.targets.len() + length, IGNORED);
        }
    }

    fn finish(self) -> Result<Batch, SegmentError> {
        Ok(Batch {
            tokens: self.tokens,
            targets: self.targets,
            segments: Segments::new(self.segments)?,
        })
    }
}
