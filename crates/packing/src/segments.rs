//! Who may see whom: the one description of the boundaries inside a row of tokens.

/// A run of tokens that see only each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of its first token.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub length: usize,
    /// Position (for rotary embeddings) of its first token.
    pub first_position: u32,
    /// Which sequence of the data set it holds; `None` = padding.
    pub sequence: Option<usize>,
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
    /// A segment without tokens.
    #[error("segment {index} has no tokens")]
    Empty {
        /// Which segment.
        index: usize,
    },
    /// A gap or an overlap.
    #[error("segment {index} starts at {start}, expected {expected}")]
    NotContiguous {
        /// Which segment.
        index: usize,
        /// Where it starts.
        start: usize,
        /// Where the one before it ended.
        expected: usize,
    },
    /// The number of tokens overflows.
    #[error("segment {index} ends beyond the largest index")]
    TooLong {
        /// Which segment.
        index: usize,
    },
}

impl Segments {
    /// Checks that `segments` are non-empty and follow each other from 0.
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
        }
        Ok(Self { segments })
    }

    /// The segments in order.
    pub fn as_slice(&self) -> &[Segment] {
        &self.segments
    }
    /// Number of tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.segments.last().map_or(0, |s| s.start + s.length)
    }
    /// Tokens of padding segments.
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
    /// `[0, end of first, …, tokens]`, as variable-length attention kernels take it.
    pub fn cu_seqlens(&self) -> Vec<u32> {
        let ends = self.segments.iter().map(|s| (s.start + s.length) as u32);
        std::iter::once(0).chain(ends).collect()
    }
    /// The position of every token.
    pub fn positions(&self) -> Vec<u32> {
        self.segments
            .iter()
            .flat_map(|s| s.first_position..s.first_position + s.length as u32)
            .collect()
    }
    /// Σ length²: what attention costs.
    pub fn attention_cost(&self) -> u128 {
        self.segments
            .iter()
            .map(|s| (s.length as u128).pow(2))
            .sum()
    }
}
