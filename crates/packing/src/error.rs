//! What can be wrong with a request to pack.

/// A request that cannot be met, with the value and where it stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A capacity outside `1..=2³²`.
    #[error("capacity {capacity} is not between 1 and {}", crate::MAX_CAPACITY)]
    Capacity {
        /// The value.
        capacity: u64,
    },
    /// A limit that must be at least 1 is 0.
    #[error("{name} must be at least 1, got 0")]
    Zero {
        /// Which limit.
        name: &'static str,
    },
    /// A sequence does not fit and [`crate::Overlong::Error`] was asked for.
    #[error("sequence {index} has {length} tokens, more than the capacity of {capacity}")]
    Overlong {
        /// Index of the first such sequence.
        index: usize,
        /// Its length.
        length: u32,
        /// The capacity.
        capacity: u64,
    },
    /// The same for a histogram, which knows no index.
    #[error("{count} sequences have {length} tokens, more than the capacity of {capacity}")]
    OverlongCount {
        /// The shortest such length.
        length: u32,
        /// How many sequences have it.
        count: u64,
        /// The capacity.
        capacity: u64,
    },
    /// The number of sequences or tokens of a histogram exceeds a `u64`.
    #[error("histogram overflows 64 bits at length {length} with count {count}")]
    HistogramOverflow {
        /// The length at which it happens.
        length: u64,
        /// Its count.
        count: u64,
    },
    /// Pieces are numbered with 32 bits.
    #[error("{pieces} pieces are more than 32-bit indices can name")]
    TooManyPieces {
        /// How many there would be.
        pieces: u64,
    },
    /// Cutting makes so many pieces that naming each would take the memory of the machine.
    #[error(
        "sequences would be cut in {cuts} places, more than the {} that can be kept one by one; \
         a larger capacity cuts less",
        crate::MAX_CUTS
    )]
    TooManyCuts {
        /// How many there would be.
        cuts: u64,
    },
    /// An algorithm that looks at every sequence cannot run on a histogram that large.
    #[error("{algorithm} packs sequence by sequence; a histogram of {sequences} is too many")]
    TooManySequences {
        /// Name of the algorithm.
        algorithm: &'static str,
        /// Sequences in the histogram.
        sequences: u64,
    },
    /// NNLSHP enumerates every way to fill a pack; here there are too many.
    #[error("nnlshp cannot enumerate the ways to fill {capacity} tokens with {depth} sequences")]
    TooManyStrategies {
        /// The capacity.
        capacity: u64,
        /// Largest number of sequences in a pack.
        depth: u64,
    },
    /// No algorithm has this name.
    #[error("unknown algorithm `{name}`; known are {}", crate::algorithm::names())]
    UnknownAlgorithm {
        /// The name.
        name: String,
    },
    /// Stored offsets do not divide the stored pieces into packs.
    #[error("offset {index} of the stored packing is {value}, which does not fit what precedes it")]
    StoredOffsets {
        /// Which offset.
        index: usize,
        /// Its value.
        value: u32,
    },
    /// A stored pack holds more than its limits allow, or an empty piece.
    #[error("stored pack {pack} with {tokens} tokens breaks its limits")]
    StoredPack {
        /// Which pack.
        pack: usize,
        /// Tokens in it.
        tokens: u64,
    },
    /// A stored packing has fewer packs than it says are possible.
    #[error("stored packing has {packs} packs, fewer than its lower bound of {lower_bound}")]
    StoredBound {
        /// What it says.
        lower_bound: u64,
        /// What it has.
        packs: usize,
    },
    /// A stored piece overlaps another of its sequence, or leaves a gap after it.
    #[error("a stored piece of sequence {sequence} starts at token {start}, expected {expected}")]
    StoredPiece {
        /// Which sequence.
        sequence: u32,
        /// Where the piece starts.
        start: u32,
        /// Where the pieces before it end.
        expected: u32,
    },
    /// A packing of another number of sequences.
    #[error("the packing is of {packed} sequences, the data has {given}")]
    OtherCount {
        /// What was packed.
        packed: u64,
        /// What there is.
        given: u64,
    },
    /// A packing of other sequences.
    #[error("sequence {sequence} had {packed} tokens when it was packed and has {given} now")]
    OtherLength {
        /// The first that differs, from 0.
        sequence: u32,
        /// Its length in the packing.
        packed: u32,
        /// Its length now.
        given: u32,
    },
}
