//! Sequence packing: lengths to packs to segments, exact and fast.
#![doc = include_str!("../README.md")]
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
//! and one pass over the packs: O(sequences).
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
pub mod random;
mod segments;
mod sequence;
mod strategies;
mod unit;

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
pub use overlong::{Cut, CutCounts, Cuts, MAX_CUTS, Overlong};
pub use packer::{HistogramPacking, Packer};
pub use packing::Packing;
pub use segments::{Segment, SegmentError, Segments};
pub use sequence::{IGNORED, Sequence, SequenceError};
pub use strategies::{Run, Strategies};
pub use unit::{Groups, Part, Units};
