//! Ordering between blocks by fences and atomics, as in PTX: a fence by the releasing thread, a
//! strong write to some address, a strong read of it by the acquiring thread, and a fence there.
use crate::memory::{Access, Scope};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Accesses that were ordered before a fence of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub block: u32,
    pub warp: u8,
    pub lane: u8,
    /// Stamp below which accesses of the whole block are included.
    pub full: u32,
    /// Stamp below which accesses of the warp are included.
    pub warp_stamp: u32,
    /// Stamp below which accesses of the thread are included.
    pub stamp: u32,
}

impl Release {
    pub(super) fn covers(&self, access: &Access) -> bool {
        let own_warp = access.scope == Scope::Lanes && access.warp == self.warp;
        let own_lane = own_warp && access.mask == 1 << self.lane;
        access.block == self.block
            && (access.stamp < self.full
                || own_warp && access.stamp < self.warp_stamp
                || own_lane && access.stamp < self.stamp)
    }
}

/// Releases of one or several threads, shared after they are made.
pub(super) type Releases = Arc<Vec<Release>>;

/// The releases that a strong read of each address obtains.
#[derive(Default)]
pub(super) struct ReleaseTable {
    any: AtomicBool,
    by_address: Mutex<HashMap<u64, Vec<Release>>>,
}

impl ReleaseTable {
    /// Records a strong write; `keeps` is set for a read-modify-write, which continues the releases
    /// that it found.
    pub(super) fn publish(&self, address: u64, releases: Option<&Releases>, keeps: bool) {
        if releases.is_none() && (keeps || !self.any.load(Relaxed)) {
            return;
        }
        self.any.store(true, Relaxed);
        let mut table = self.by_address.lock().unwrap_or_else(|e| e.into_inner());
        let entry = table.entry(address).or_default();
        if !keeps {
            entry.clear();
        }
        for release in releases.iter().flat_map(|r| r.iter()) {
            let same = |e: &&mut Release| {
                (e.block, e.warp, e.lane) == (release.block, release.warp, release.lane)
            };
            match entry.iter_mut().find(same) {
                Some(known) => *known = *release,
                None => entry.push(*release),
            }
        }
    }

    /// Releases that a strong read obtains.
    pub(super) fn obtain(&self, address: u64) -> Option<Releases> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let table = self.by_address.lock().unwrap_or_else(|e| e.into_inner());
        table
            .get(&address)
            .filter(|found| !found.is_empty())
            .map(|found| Arc::new(found.clone()))
    }
}
