//! Registers the algorithms by name, with the trait that each implements.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Histogram, PackError, Piece, Strategies, algorithms};

/// The largest capacity of a pack: 2³².
pub const MAX_CAPACITY: u64 = 1 << 32;

/// Algorithms that put sequences together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Best-fit decreasing: longest first, into the fullest pack that still holds it.
    #[default]
    BestFit,
    /// First-fit decreasing: longest first, into the first pack that holds it.
    FirstFit,
    /// Shortest-pack-first histogram packing.
    Spfhp,
    /// Longest-pack-first histogram packing.
    Lpfhp,
    /// Non-negative least squares histogram packing.
    Nnlshp,
    /// Best-fit in input order over a bounded window of open packs.
    Streaming,
    /// Concatenates the sequences and cuts them at pack borders: sequences cross from pack to pack.
    Wrapped,
    /// Batches in input order, concatenated without padding.
    PaddingFree,
    /// Batches in input order, each padded to its longest sequence.
    Padded,
    /// Batches of similar lengths, each padded to its longest sequence.
    Bucketed,
}

/// Shape in which the model gets a pack, which decides what the pack costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One row of `capacity` tokens; the space that the sequences leave is padding.
    Packed,
    /// One row that is as long as all sequences together.
    PaddingFree,
    /// One row per sequence; all rows are as long as the longest.
    Padded,
}

/// Checked limits of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of tokens in a pack, `1..=2³²`.
    pub capacity: u64,
    /// Number of sequences in a pack (or batch), at least 1; `u64::MAX` = unlimited.
    pub sequences: u64,
    /// Number of packs that streaming keeps open, at least 1.
    pub window: usize,
}

/// An algorithm that needs only the number of sequences of each length.
pub trait HistogramPacker: Sync {
    /// Returns packs that hold `histogram` exactly; its lengths are in `1..=limits.capacity`.
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError>;
}

/// An algorithm that takes the sequences in their order.
pub trait OrderedPacker: Sync {
    /// Calls `emit` with each finished pack. Lengths of `pieces` are in `1..=limits.capacity`
    /// unless the algorithm cuts sequences itself.
    fn pack(
        &self,
        pieces: &mut dyn Iterator<Item = Piece>,
        limits: &Limits,
        emit: &mut dyn FnMut(&[Piece]),
    );
}

/// Code of an algorithm.
#[derive(Clone, Copy)]
pub enum Implementation {
    /// The algorithm works on the histogram.
    Histogram(&'static dyn HistogramPacker),
    /// The algorithm works on the sequences in order.
    Ordered(&'static dyn OrderedPacker),
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 10] = [
        Self::BestFit,
        Self::FirstFit,
        Self::Spfhp,
        Self::Lpfhp,
        Self::Nnlshp,
        Self::Streaming,
        Self::Wrapped,
        Self::PaddingFree,
        Self::Padded,
        Self::Bucketed,
    ];

    fn registration(self) -> (&'static str, Layout, Implementation) {
        use Implementation::{Histogram, Ordered};
        use Layout::{Packed, Padded, PaddingFree};
        match self {
            Self::BestFit => ("best-fit", Packed, Histogram(&algorithms::BestFit)),
            Self::FirstFit => ("first-fit", Packed, Histogram(&algorithms::FirstFit)),
            Self::Spfhp => ("spfhp", Packed, Histogram(&algorithms::Spfhp)),
            Self::Lpfhp => ("lpfhp", Packed, Histogram(&algorithms::Lpfhp)),
            Self::Nnlshp => ("nnlshp", Packed, Histogram(&algorithms::Nnlshp)),
            Self::Streaming => ("streaming", Packed, Ordered(&algorithms::Streaming)),
            Self::Wrapped => ("wrapped", Packed, Ordered(&algorithms::Wrapped)),
            Self::PaddingFree => ("padding-free", PaddingFree, Ordered(&algorithms::InOrder)),
            Self::Padded => ("padded", Padded, Ordered(&algorithms::InOrder)),
            Self::Bucketed => ("bucketed", Padded, Histogram(&algorithms::Bucketed)),
        }
    }

    /// Name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        self.registration().0
    }
    /// Shape in which the model gets the packs.
    pub fn layout(self) -> Layout {
        self.registration().1
    }
    /// Code of the algorithm.
    pub fn implementation(self) -> Implementation {
        self.registration().2
    }
    /// Whether the algorithm may cut a sequence where a pack ends; it then needs no other treatment
    /// of overlong sequences.
    pub fn cuts_sequences(self) -> bool {
        self == Self::Wrapped
    }
    /// Limit on sequences per pack if none is given.
    pub fn default_depth(self) -> Option<u32> {
        (self == Self::Nnlshp).then_some(3)
    }
}

pub(crate) fn names() -> String {
    Algorithm::ALL.map(Algorithm::name).join(", ")
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = PackError;
    fn from_str(name: &str) -> Result<Self, PackError> {
        let known = Self::ALL.into_iter().find(|a| a.name() == name);
        known.ok_or_else(|| PackError::UnknownAlgorithm { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for algorithm in Algorithm::ALL {
            let json = format!("\"{}\"", algorithm.name());
            assert_eq!(serde_json::to_string(&algorithm).unwrap(), json);
            assert_eq!(serde_json::from_str::<Algorithm>(&json).unwrap(), algorithm);
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        let error = "bestfit".parse::<Algorithm>().unwrap_err().to_string();
        assert!(
            error.contains("`bestfit`") && error.contains("best-fit, first-fit"),
            "{error}"
        );
    }
}
