//! Sequence packing: lengths to packs to segments, exact and fast.
//!
//! Pure data: no tensors, no files.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod batch;
mod segments;
mod sequence;

pub use batch::{Batch, Piece};
pub use segments::{Segment, SegmentError, Segments};
pub use sequence::{IGNORED, Sequence, SequenceError};
