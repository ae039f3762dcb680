//! The happens-before relation of the race check: each thread of a block knows some earlier events.
//!
//! Every synchronisation in the block advances one event count, and an access carries the count
//! of its time as its stamp. "A knows B up to n" means that all accesses of B with a stamp below
//! n happen before what A does now. Knowledge is kept for the whole block (full barriers), for
//! pairs of warps (partial barriers) and for pairs of lanes (`__syncwarp` of some lanes).
use super::release::{Release, Releases};
use crate::memory::{Access, Judge, Order, Scope};
use std::sync::Arc;

type LaneMatrix = [[u32; 32]; 32];

#[derive(Default)]
struct WarpClock {
    /// Knowledge about other warps, by number.
    known: [u32; 32],
    /// Knowledge of all lanes of this warp about each other.
    internal: u32,
    /// Additional knowledge `lanes[a][b]` of lane a about lane b.
    lanes: Option<Box<LaneMatrix>>,
    /// Releases of other blocks that lanes (mask) have acquired.
    acquired: Vec<(u32, Releases)>,
    /// Releases that lanes (mask) have read, which their next fence acquires.
    pending: Vec<(u32, Releases)>,
    /// For each lane, the releases of its last fence.
    fenced: Option<Box<[Option<Releases>; 32]>>,
}

pub(super) struct BlockClock {
    block: u32,
    event: u32,
    full: u32,
    warps: Vec<WarpClock>,
    acquired: Vec<Releases>,
}

impl BlockClock {
    pub(super) fn new(block: u32, warps: usize) -> Self {
        let warps = (0..warps).map(|_| WarpClock::default()).collect();
        Self {
            block,
            event: 1,
            full: 0,
            warps,
            acquired: Vec::new(),
        }
    }

    /// Stamp of an access made now.
    pub(super) fn now(&self) -> u32 {
        self.event
    }

    /// Ends a range of program order: accesses from here on have a later stamp.
    pub(super) fn advance(&mut self) -> u32 {
        self.event += 1;
        self.event
    }

    /// Records that all threads of the block have met.
    pub(super) fn join_block(&mut self) {
        self.full = self.advance();
        for warp in &mut self.warps {
            self.acquired
                .extend(warp.acquired.drain(..).map(|(_, releases)| releases));
        }
    }

    /// Records that the warps in `learning` have met those in `arrived`, which came with these
    /// stamps.
    pub(super) fn join_warps(&mut self, learning: u32, arrived: &[(usize, u32)]) {
        let mut joined = [0; 32];
        let mut acquired = Vec::new();
        for (warp, stamp) in arrived {
            for (all, one) in joined.iter_mut().zip(self.warps[*warp].known) {
                *all = one.max(*all);
            }
            joined[*warp] = joined[*warp].max(*stamp);
            acquired.extend(
                self.warps[*warp]
                    .acquired
                    .iter()
                    .map(|(_, releases)| releases.clone()),
            );
        }
        for warp in (0..self.warps.len()).filter(|w| learning >> w & 1 == 1) {
            let clock = &mut self.warps[warp];
            clock.known = joined;
            clock.internal = clock.internal.max(joined[warp]);
            clock.acquired = acquired
                .iter()
                .map(|releases| (!0, releases.clone()))
                .collect();
        }
    }

    /// `__syncwarp` of the lanes in `members`; `everyone` is the mask of the warp's threads.
    pub(super) fn join_lanes(&mut self, warp: usize, members: u32, everyone: u32) {
        let event = self.advance();
        let clock = &mut self.warps[warp];
        let met = |lanes: &mut u32| *lanes |= if *lanes & members != 0 { members } else { 0 };
        clock.acquired.iter_mut().for_each(|(lanes, _)| met(lanes));
        if members == everyone {
            clock.internal = event;
            return;
        }
        let internal = clock.internal;
        let lanes = clock
            .lanes
            .get_or_insert_with(|| Box::new([[internal; 32]; 32]));
        let of = |mask: u32| (0..32).filter(move |lane| mask >> lane & 1 == 1);
        let mut joined = [0; 32];
        for a in of(members) {
            for (all, one) in joined.iter_mut().zip(lanes[a]) {
                *all = one.max(*all);
            }
        }
        of(members).for_each(|b| joined[b] = event);
        of(members).for_each(|a| lanes[a] = joined);
    }

    /// A fence by `lanes`: it acquires what they have read, and releases what they know.
    pub(super) fn fence(&mut self, warp: usize, lanes: u32) {
        let (full, block) = (self.full, self.block);
        let stamp = self.advance();
        let inherited: Vec<Releases> = self.acquired.clone();
        let clock = &mut self.warps[warp];
        for (readers, releases) in std::mem::take(&mut clock.pending) {
            if readers & lanes != 0 {
                clock.acquired.push((readers & lanes, releases.clone()));
            }
            if readers & !lanes != 0 {
                clock.pending.push((readers & !lanes, releases));
            }
        }
        let fenced = clock.fenced.get_or_insert_with(Default::default);
        for lane in (0..32).filter(|lane| lanes >> lane & 1 == 1) {
            let mut all: Vec<Release> = inherited.iter().flat_map(|r| r.iter().copied()).collect();
            let own = clock
                .acquired
                .iter()
                .filter(|(readers, _)| readers >> lane & 1 == 1);
            all.extend(own.flat_map(|(_, releases)| releases.iter().copied()));
            let warp_stamp = clock.internal;
            all.push(Release {
                block,
                warp: warp as u8,
                lane: lane as u8,
                full,
                warp_stamp,
                stamp,
            });
            fenced[lane] = Some(Arc::new(all));
        }
    }

    /// Releases of a strong write by the lane.
    pub(super) fn released_by(&self, warp: usize, lane: usize) -> Option<&Releases> {
        self.warps[warp]
            .fenced
            .as_ref()
            .and_then(|fenced| fenced[lane].as_ref())
    }

    /// Records the releases that a strong read by the lane obtained.
    pub(super) fn obtained(&mut self, warp: usize, lane: usize, releases: Releases) {
        self.warps[warp].pending.push((1 << lane, releases));
    }

    fn acquired_covers(&self, warp: usize, lane: u32, access: &Access) -> bool {
        let own = self.warps[warp]
            .acquired
            .iter()
            .filter(|(lanes, _)| lanes >> lane & 1 == 1);
        let all = self
            .acquired
            .iter()
            .chain(own.map(|(_, releases)| releases));
        // Several blocks are remembered as one set, and acquiring one of them is enough.
        let set = access.scope == Scope::Blocks;
        all.flat_map(|releases| releases.iter())
            .any(|release| set || release.covers(access))
    }
}

/// View of one lane on earlier events.
pub(super) struct LaneJudge<'a> {
    pub clock: &'a BlockClock,
    pub order: &'a Order,
    pub warp: usize,
    pub lane: u32,
}

impl Judge for LaneJudge<'_> {
    #[inline]
    fn is_before(&self, earlier: &Access) -> bool {
        if earlier.operation != self.order.operation {
            return self.order.is_after(earlier.operation);
        }
        if earlier.block != self.clock.block || earlier.scope == Scope::Blocks {
            return self.clock.acquired_covers(self.warp, self.lane, earlier);
        }
        if earlier.stamp < self.clock.full {
            return true;
        }
        let own = &self.clock.warps[self.warp];
        let lanes_are_before = |mask: u32| {
            let others = mask & !(1 << self.lane);
            others == 0
                || earlier.stamp < own.internal
                || own.lanes.as_ref().is_some_and(|lanes| {
                    let known = &lanes[self.lane as usize];
                    (0..32)
                        .filter(|l| others >> l & 1 == 1)
                        .all(|l| earlier.stamp < known[l])
                })
        };
        match earlier.scope {
            Scope::Lanes if usize::from(earlier.warp) == self.warp => {
                lanes_are_before(earlier.mask)
            }
            Scope::Lanes => earlier.stamp < own.known[usize::from(earlier.warp)],
            Scope::Warps => (0..32).filter(|w| earlier.mask >> w & 1 == 1).all(|w| {
                if w == self.warp {
                    lanes_are_before(!0)
                } else {
                    earlier.stamp < own.known[w]
                }
            }),
            Scope::Blocks | Scope::Operations => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(clock: &BlockClock, warp: u8, lane: u32) -> Access {
        let (block, stamp) = (clock.block, clock.now());
        Access {
            operation: 1,
            block,
            stamp,
            warp,
            mask: 1 << lane,
            ..Access::NONE
        }
    }

    fn knows(clock: &BlockClock, warp: usize, lane: u32, earlier: &Access) -> bool {
        let order = Order::sequential(1);
        LaneJudge {
            clock,
            order: &order,
            warp,
            lane,
        }
        .is_before(earlier)
    }

    #[test]
    fn program_order_is_of_one_lane() {
        let clock = BlockClock::new(0, 2);
        let earlier = access(&clock, 0, 3);
        assert!(knows(&clock, 0, 3, &earlier));
        assert!(!knows(&clock, 0, 4, &earlier), "lock-step is no order");
        assert!(!knows(&clock, 1, 3, &earlier));
    }

    #[test]
    fn a_barrier_orders_the_block() {
        let mut clock = BlockClock::new(0, 2);
        let earlier = access(&clock, 0, 3);
        clock.join_block();
        assert!(knows(&clock, 1, 5, &earlier));
        let later = access(&clock, 0, 3);
        assert!(!knows(&clock, 1, 5, &later));
    }

    #[test]
    fn a_partial_barrier_orders_its_warps_and_what_they_knew() {
        let mut clock = BlockClock::new(0, 4);
        let first = access(&clock, 0, 0);
        let stamp = clock.advance();
        clock.join_warps(0b11, &[(0, stamp), (1, stamp)]);
        assert!(knows(&clock, 1, 9, &first));
        assert!(!knows(&clock, 2, 9, &first));
        let stamp = clock.advance();
        clock.join_warps(0b110, &[(1, stamp), (2, stamp)]);
        assert!(knows(&clock, 2, 9, &first), "through warp 1");
    }

    #[test]
    fn arriving_releases_without_learning() {
        let mut clock = BlockClock::new(0, 2);
        let (by_producer, by_consumer) = (access(&clock, 0, 0), access(&clock, 1, 0));
        let stamp = clock.advance();
        let late = access(&clock, 0, 0);
        clock.join_warps(0b10, &[(0, stamp), (1, stamp)]);
        assert!(knows(&clock, 1, 1, &by_producer));
        assert!(!knows(&clock, 1, 1, &late), "made after the arrival");
        assert!(!knows(&clock, 0, 1, &by_consumer));
    }

    #[test]
    fn syncwarp_orders_its_lanes() {
        let mut clock = BlockClock::new(0, 1);
        let earlier = access(&clock, 0, 0);
        clock.join_lanes(0, 0b11, !0);
        assert!(knows(&clock, 0, 1, &earlier));
        assert!(!knows(&clock, 0, 2, &earlier));
        clock.join_lanes(0, 0b110, !0);
        assert!(knows(&clock, 0, 2, &earlier), "through lane 1");
        clock.join_lanes(0, !0, !0);
        assert!(knows(&clock, 0, 31, &earlier));
    }

    #[test]
    fn fences_and_atomics_order_blocks() {
        let mut releasing = BlockClock::new(0, 2);
        let before_barrier = access(&releasing, 1, 7);
        releasing.join_block();
        let by_other = access(&releasing, 1, 7);
        let own = access(&releasing, 0, 0);
        releasing.fence(0, 1);
        let late = access(&releasing, 0, 0);
        let releases = releasing.released_by(0, 0).unwrap().clone();

        let mut acquiring = BlockClock::new(1, 2);
        acquiring.obtained(0, 4, releases);
        assert!(!knows(&acquiring, 0, 4, &own), "a fence is missing");
        acquiring.fence(0, 1 << 4);
        assert!(knows(&acquiring, 0, 4, &own) && knows(&acquiring, 0, 4, &before_barrier));
        assert!(!knows(&acquiring, 0, 4, &late) && !knows(&acquiring, 0, 4, &by_other));
        assert!(!knows(&acquiring, 0, 5, &own), "only the lane that fenced");
        acquiring.join_block();
        assert!(knows(&acquiring, 1, 30, &own));
    }
}
