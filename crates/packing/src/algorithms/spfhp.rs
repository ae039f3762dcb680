//! Shortest-pack-first histogram packing.

use super::open_packs::{Room, Tie, pack_decreasing};
use crate::{Histogram, HistogramPacker, Limits, PackError, Strategies};

/// Longest first, into the pack with the most room; of equal ones the newest.
///
/// Source: Krell et al., *Efficient Sequence Packing without Cross-contamination* (2021).
pub struct Spfhp;

impl HistogramPacker for Spfhp {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        Ok(pack_decreasing(histogram, limits, Room::Most, Tie::Newest))
    }
}
