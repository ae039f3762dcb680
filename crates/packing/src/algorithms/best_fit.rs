//! Best-fit decreasing: longest first, into the fullest pack that still holds it.

use super::open_packs::{Room, Tie, pack_decreasing};
use crate::{Histogram, HistogramPacker, Limits, PackError, Strategies};

/// Exact best-fit decreasing; among equally full packs it takes the pack that became so first.
pub(crate) struct BestFit;

impl HistogramPacker for BestFit {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        Ok(pack_decreasing(histogram, limits, Room::Least, Tie::Oldest))
    }
}
