//! Sequence packing: lengths to packs to segments, exact and fast.
//!
//! Pure data: no tensors, no files.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod algorithm;
mod algorithms;
mod assign;
mod batch;
mod bound;
mod error;
mod histogram;
mod overlong;
mod packer;
mod packing;
mod random;
mod segments;
mod sequence;
mod strategies;

pub use algorithm::{
    Algorithm, HistogramPacker, Implementation, Layout, Limits, MAX_CAPACITY, OrderedPacker,
};
pub use algorithms::{OpenPack, Stream, StreamError};
pub use batch::{Batch, Piece};
pub use bound::lower_bound;
pub use error::PackError;
pub use histogram::Histogram;
pub use overlong::{Cut, CutCounts, Cuts, Overlong};
pub use packer::{HistogramPacking, Packer};
pub use packing::Packing;
pub use segments::{Segment, SegmentError, Segments};
pub use sequence::{IGNORED, Sequence, SequenceError};
pub use strategies::{Run, Strategies};
