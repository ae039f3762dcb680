//! Errors of requests to pack.

/// A request that cannot be fulfilled, with the offending value and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A capacity outside `1..=2³²`.
    #[error("capacity {capacity} is not between 1 and {}", crate::MAX_CAPACITY)]
    Capacity {
        /// The given capacity.
        capacity: u64,
    },
    /// A limit that must be at least 1 is 0.
    #[error("{name} must be at least 1, got 0")]
    Zero {
        /// Name of the limit.
        name: &'static str,
    },
    /// A sequence does not fit and [`crate::Overlong::Error`] was asked for.
    #[error("sequence {index} has {length} {}, more than the capacity of {capacity}", tokens(u64::from(*length)))]
    Overlong {
        /// Index of the first such sequence.
        index: usize,
        /// Length of the sequence.
        length: u32,
        /// The capacity.
        capacity: u64,
    },
    /// Some sequences of a histogram do not fit; a histogram knows no index.
    #[error(
        "{count} {} {length} {}, more than the capacity of {capacity}",
        one_or(*count, "sequence has", "sequences have"), tokens(u64::from(*length))
    )]
    OverlongCount {
        /// The shortest such length.
        length: u32,
        /// Number of sequences with this length.
        count: u64,
        /// The capacity.
        capacity: u64,
    },
    /// The number of sequences or tokens of a histogram exceeds a `u64`.
    #[error("histogram overflows 64 bits at length {length} with count {count}")]
    HistogramOverflow {
        /// Length at which the overflow happens.
        length: u64,
        /// Count of this length.
        count: u64,
    },
    /// Pieces are numbered with 32 bits.
    #[error("{pieces} pieces are more than 32-bit indices can name")]
    TooManyPieces {
        /// Number of pieces that would be needed.
        pieces: u64,
    },
    /// Cutting makes so many pieces that listing them would exhaust the memory of the machine.
    #[error(
        "sequences would be cut in {cuts} places, more than the {} that can be kept one by one; \
         a larger capacity cuts less",
        crate::MAX_CUTS
    )]
    TooManyCuts {
        /// Number of cuts that would be needed.
        cuts: u64,
    },
    /// An algorithm that looks at every sequence cannot run on a histogram of this size.
    #[error(
        "{algorithm} packs sequence by sequence; a histogram of {sequences} sequences is too large"
    )]
    TooManySequences {
        /// Name of the algorithm.
        algorithm: &'static str,
        /// Number of sequences in the histogram.
        sequences: u64,
    },
    /// NNLSHP enumerates every way to fill a pack, and there are too many ways.
    #[error(
        "nnlshp cannot enumerate the ways to fill {capacity} {} with {depth} {}",
        tokens(*capacity), one_or(*depth, "sequence", "sequences")
    )]
    TooManyStrategies {
        /// The capacity.
        capacity: u64,
        /// Largest number of sequences in a pack.
        depth: u64,
    },
    /// No algorithm has this name.
    #[error("unknown algorithm `{name}`; known are {}", crate::algorithm::names())]
    UnknownAlgorithm {
        /// The unknown name.
        name: String,
    },
    /// Stored offsets do not divide the stored pieces into packs.
    #[error("offset {index} of the stored packing is {value}, which does not fit what precedes it")]
    StoredOffsets {
        /// Index of the offset.
        index: usize,
        /// Value of the offset.
        value: u32,
    },
    /// A stored pack holds more than its limits allow, or an empty piece.
    #[error("stored pack {pack} with {tokens} {} breaks its limits", self::tokens(*tokens))]
    StoredPack {
        /// Index of the pack.
        pack: usize,
        /// Number of tokens in the pack.
        tokens: u64,
    },
    /// A stored packing has fewer packs than it says are possible.
    #[error(
        "stored packing has {packs} {}, fewer than its lower bound of {lower_bound}",
        one_or(*packs as u64, "pack", "packs")
    )]
    StoredBound {
        /// The stored bound.
        lower_bound: u64,
        /// Number of stored packs.
        packs: usize,
    },
    /// A stored piece overlaps another piece of its sequence, or leaves a gap before it.
    #[error("a stored piece of sequence {sequence} starts at token {start}, expected {expected}")]
    StoredPiece {
        /// Index of the sequence.
        sequence: u32,
        /// Start of the piece.
        start: u32,
        /// End of the pieces before it.
        expected: u32,
    },
    /// The packing was made for another number of sequences.
    #[error(
        "the packing is of {packed} {}, the data has {given}",
        one_or(*packed, "sequence", "sequences")
    )]
    OtherCount {
        /// Number of packed sequences.
        packed: u64,
        /// Number of given sequences.
        given: u64,
    },
    /// The packing was made for other sequences.
    #[error(
        "sequence {sequence} had {packed} {} when it was packed and has {given} now",
        tokens(u64::from(*packed))
    )]
    OtherLength {
        /// Index of the first sequence that differs, from 0.
        sequence: u32,
        /// Length of the sequence in the packing.
        packed: u32,
        /// Length of the given sequence.
        given: u32,
    },
}

fn tokens(count: u64) -> &'static str {
    one_or(count, "token", "tokens")
}

fn one_or(count: u64, one: &'static str, more: &'static str) -> &'static str {
    if count == 1 { one } else { more }
}
