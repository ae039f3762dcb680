//! Shortest-pack-first histogram packing.

use super::open_packs::{Room, Tie, pack_decreasing};
use crate::{Histogram, HistogramPacker, Limits, PackError, Strategies};

/// Longest first, into the pack with the most room; of equal ones the newest. Where none has room,
/// every sequence that is left of the length opens a pack, all before any gets a second one: the
/// more sequences share a length, the more packs that costs.
///
/// Source: Krell et al., *Efficient Sequence Packing without Cross-contamination* (2021).
pub(crate) struct Spfhp;

impl HistogramPacker for Spfhp {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        Ok(pack_decreasing(histogram, limits, Room::Most, Tie::Newest))
    }
}
