//! The algorithms by name: what each implements, and the one place where they are registered.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Histogram, PackError, Piece, Strategies, algorithms};

/// The largest capacity of a pack: 2³².
pub const MAX_CAPACITY: u64 = 1 << 32;

/// How sequences are put together.
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
    /// Concatenated and cut: sequences cross from pack to pack.
    Wrapped,
    /// Batches in input order, concatenated without padding.
    PaddingFree,
    /// Batches in input order, each padded to its longest sequence.
    Padded,
    /// Batches of similar lengths, each padded to its longest sequence.
    Bucketed,
}

/// What a pack looks like to the model, and so what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One row of `capacity` tokens; what the sequences leave over is padding.
    Packed,
    /// One row as long as the sequences together.
    PaddingFree,
    /// One row a sequence, all as long as the longest.
    Padded,
}

/// What a pack may hold, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens in a pack, `1..=2³²`.
    pub capacity: u64,
    /// Sequences in a pack (or batch), at least 1; `u64::MAX` = unlimited.
    pub sequences: u64,
    /// Packs that streaming keeps open, at least 1.
    pub window: usize,
}

/// An algorithm that needs to know only how many sequences have which length.
pub trait HistogramPacker: Sync {
    /// Packs that hold `histogram` exactly; its lengths are in `1..=limits.capacity`.
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError>;
}

/// An algorithm that takes the sequences as they come.
pub trait OrderedPacker: Sync {
    /// Calls `emit` with each pack as it is finished. Lengths of `pieces` are in
    /// `1..=limits.capacity` unless the algorithm cuts sequences itself.
    fn pack(
        &self,
        pieces: &mut dyn Iterator<Item = Piece>,
        limits: &Limits,
        emit: &mut dyn FnMut(&[Piece]),
    );
}

/// The code behind an algorithm.
#[derive(Clone, Copy)]
pub enum Implementation {
    /// Works on the histogram.
    Histogram(&'static dyn HistogramPacker),
    /// Works on the sequences in order.
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

    /// The name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        self.registration().0
    }
    /// What its packs look like to the model.
    pub fn layout(self) -> Layout {
        self.registration().1
    }
    /// The code.
    pub fn implementation(self) -> Implementation {
        self.registration().2
    }
    /// Whether sequences may be cut where a pack ends; over-long ones then need no other treatment.
    pub fn cuts_sequences(self) -> bool {
        self == Self::Wrapped
    }
    /// The limit on sequences per pack that it works with when none is given.
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
