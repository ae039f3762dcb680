//! Sequence packing: lengths to packs to segments, exact and fast.
//!
//! Pure data: no tensors, no files.
//!
//! ```
//! use tightrope_packing::{Algorithm, Overlong, Packer, Sequence};
//!
//! let sequences: Vec<Sequence> = [7, 3, 12, 5, 2]
//!     .map(|length| Sequence::from_labels(vec![9; length], &vec![9; length]).unwrap())
//!     .into();
//! let lengths: Vec<u32> = sequences.iter().map(|s| s.len() as u32).collect();
//!
//! let packer = Packer {
//!     overlong: Overlong::Truncate,
//!     seed: Some(42),
//!     ..Packer::new(Algorithm::BestFit, 10)
//! };
//! let packing = packer.pack(&lengths)?;
//! assert_eq!((packing.len(), packing.lower_bound()), (3, 3)); // optimal
//! assert_eq!(packing.cuts().truncated.len(), 1); // the sequence of 12
//!
//! // Each epoch sees the packs in another order; nothing is packed again.
//! for epoch in 0..2 {
//!     for pack in packing.epoch_order(42, epoch) {
//!         let batch = packing.batch(pack as usize, &sequences, 0).unwrap();
//!         assert!(batch.len() <= 10);
//!         let _attention_sees_only = batch.segments().cu_seqlens();
//!     }
//! }
//! # Ok::<(), tightrope_packing::PackError>(())
//! ```
//!
//! # What is where
//! - [`Packer`] takes lengths or a [`Histogram`] and an [`Algorithm`] by name; an algorithm is one
//!   file that implements [`HistogramPacker`] or [`OrderedPacker`], and a line of registration.
//! - [`Packing`] is the result: every sequence in exactly one pack in full, or in its [`Cuts`];
//!   [`Packing::shard`] divides it over ranks, [`Packing::batch`] makes what the model reads.
//! - [`lower_bound`] says how few packs are possible, [`improve`] looks for them: best-fit
//!   decreasing is rarely optimal on lengths beyond a third of the capacity.
//! - [`Stream`] packs data that does not fit in memory.
//! - [`Padding`] says what batches would have cost instead.
//! - [`Segments`] is the one description of who may see whom.
//!
//! # Cost
//! All but the algorithms that take sequences as they come work on the histogram, on groups of
//! equal packs: their cost grows with distinct lengths. Which sequence goes where is a counting sort
//! and one pass over the packs: O(sequences). Measured figures, and the command behind each, are in
//! the crate's README.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod algorithm;
mod algorithms;
mod assign;
mod baseline;
mod batch;
mod bound;
mod error;
mod histogram;
mod improve;
mod overlong;
mod packer;
mod packing;
mod random;
mod segments;
mod sequence;
mod shard;
mod strategies;

pub use algorithm::{
    Algorithm, HistogramPacker, Implementation, Layout, Limits, MAX_CAPACITY, OrderedPacker,
};
pub use algorithms::{OpenPack, Stream, StreamError};
pub use baseline::Padding;
pub use batch::{Batch, Piece};
pub use bound::lower_bound;
pub use error::PackError;
pub use histogram::Histogram;
pub use improve::{Improved, improve};
pub use overlong::{Cut, CutCounts, Cuts, Overlong};
pub use packer::{HistogramPacking, Packer};
pub use packing::Packing;
pub use segments::{Segment, SegmentError, Segments};
pub use sequence::{IGNORED, Sequence, SequenceError};
pub use shard::{Balance, Shards};
pub use strategies::{Run, Strategies};
