//! Shortest-pack-first histogram packing.

use super::open_packs::{Room, Tie, pack_decreasing};
use crate::{Histogram, HistogramPacker, Limits, PackError, Strategies};

/// Puts the longest first into the pack with the most room, the newest among equal ones. If no pack
/// has room, every remaining sequence of the length opens a pack before any pack gets a second one:
/// the more sequences share a length, the more packs this costs.
///
/// Source: Krell et al., *Efficient Sequence Packing without Cross-contamination* (2021).
pub(crate) struct Spfhp;

impl HistogramPacker for Spfhp {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        Ok(pack_decreasing(histogram, limits, Room::Most, Tie::Newest))
    }
}
