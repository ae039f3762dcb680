//! Longest-pack-first histogram packing.

use super::open_packs::{Room, Tie, pack_decreasing};
use crate::{Histogram, HistogramPacker, Limits, PackError, Strategies};

/// Puts the longest first into the pack with the least room that fits, the newest among equal ones.
/// A length enters a pack several times at once. Without a limit on sequences the algorithm needs
/// as many packs as [`BestFit`](super::BestFit).
///
/// Source: Krell et al., *Efficient Sequence Packing without Cross-contamination* (2021).
pub(crate) struct Lpfhp;

impl HistogramPacker for Lpfhp {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        Ok(pack_decreasing(histogram, limits, Room::Least, Tie::Newest))
    }
}
