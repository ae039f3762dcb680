//! Sequence packing turns lengths into packs and segments, exactly and fast.
#![doc = include_str!("../README.md")]
//!
//! # What is where
//! - [`Packer`] takes lengths or a [`Histogram`] and an [`Algorithm`] by name; an algorithm is one
//!   file that implements [`HistogramPacker`] or [`OrderedPacker`], and a line of registration.
//! - [`Packing`] is the result: every sequence in exactly one pack in full, or in its [`Cuts`];
//!   [`Packing::batch`] makes the input of the model.
//! - [`lower_bound`] gives the fewest packs that are possible, and [`improve`] looks for them:
//!   best-fit decreasing is rarely optimal on lengths beyond a third of the capacity.
//! - [`Packer::pack_steps`] packs each optimizer step by itself.
//! - [`Stream`] packs data that does not fit in memory.
//! - [`Padding`] gives the cost of padded batches for comparison.
//! - [`Segments`] is the only description of which tokens see which.
//!
//! # Cost
//! Algorithms that do not depend on the order of the sequences work on the histogram, on groups of
//! equal packs, so their cost grows with the number of distinct lengths. Assigning the sequences
//! takes a counting sort and one pass over the packs: O(sequences).
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
mod steps;
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
pub use segments::{RowSequence, Segment, SegmentError, Segments};
pub use sequence::{IGNORED, Sequence, SequenceError};
pub use steps::Steps;
pub use strategies::{Run, Strategies};
pub use unit::{Groups, Part, Units};
