//! Executes one block: its warps take turns until all have exited.
use super::barrier::BarrierState;
use super::clock::BlockClock;
use super::launch::Launch;
use super::release::ReleaseTable;
use super::warp::{Placement, Warp};
use crate::counters::Counters;
use crate::decode::Kernel;
use crate::finding::{Checked, Fault, Finding, FindingKind, Place};
use crate::memory::{Access, DeviceMemory, Kind, Order, SharedMemory};

/// Executes blocks one after another, and reuses their memory.
pub(super) struct Runner<'a> {
    pub launch: &'a Launch<'a>,
    pub kernel: &'a Kernel,
    pub memory: &'a DeviceMemory,
    pub order: &'a Order,
    pub releases: &'a ReleaseTable,
    pub place: Placement,
    pub block_number: u32,
    pub shared: SharedMemory,
    pub clock: BlockClock,
    pub barriers: [BarrierState; 16],
    pub counters: Counters,
    /// Line of the current instruction, with the lanes and warp that execute it.
    pub line: u32,
    pub active: u32,
    pub warp: usize,
    random: Option<Random>,
}

/// Linear congruential generator for schedules, not for statistics.
#[derive(Clone, Copy)]
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Number of instructions that a warp executes before the next warp takes its turn.
const TURN: u64 = 10_000;

impl<'a> Runner<'a> {
    pub(super) fn new(launch: &'a Launch<'a>, place: Placement) -> Self {
        Self {
            launch,
            kernel: launch.kernel,
            memory: launch.memory,
            order: launch.order,
            releases: &launch.releases,
            place,
            block_number: 0,
            shared: SharedMemory::new(place.total_shared as usize),
            clock: BlockClock::new(0, 0),
            barriers: Default::default(),
            counters: Counters::default(),
            line: 0,
            active: 0,
            warp: 0,
            random: None,
        }
    }

    pub(super) fn access(&self, warp: usize, lane: usize, kind: Kind) -> Access {
        Access {
            operation: self.order.operation,
            block: self.block_number,
            stamp: self.clock.now(),
            mask: 1 << lane,
            line: self.line,
            warp: warp as u8,
            kind,
            ..Access::NONE
        }
    }

    /// Runs block `number` of the grid to its end, or to its first finding.
    pub(super) fn block(&mut self, number: u64, warps: &mut [Warp]) -> Result<(), Box<Finding>> {
        let [x, y, _] = self.place.grid_shape.map(u64::from);
        self.place.block = [
            (number % x) as u32,
            (number / x % y) as u32,
            (number / x / y) as u32,
        ];
        self.block_number = number as u32;
        self.shared.reset(self.place.total_shared as usize);
        self.clock = BlockClock::new(self.block_number, warps.len());
        self.barriers = Default::default();
        self.random = self
            .launch
            .config
            .seed
            .map(|seed| Random(seed ^ number.wrapping_mul(0x9e37_79b9)));
        let threads = self.place.block_shape.iter().product();
        let place = self.place;
        warps
            .iter_mut()
            .for_each(|warp| warp.start(self.kernel, threads, &place));
        self.counters.blocks += 1;
        self.turns(warps)
            .map_err(|fault| Box::new(self.locate(*fault)))
    }

    fn locate(&self, fault: Fault) -> Finding {
        let lane = fault.lane.unwrap_or(self.active.trailing_zeros().min(31));
        let thread = self.place.thread(self.warp as u32 * 32 + lane);
        let kernel = self.kernel.name.clone();
        fault.at(Place::Kernel {
            kernel,
            block: self.place.block,
            thread,
            line: self.line,
        })
    }

    fn turns(&mut self, warps: &mut [Warp]) -> Checked<()> {
        let mut order: Vec<usize> = (0..warps.len()).collect();
        while warps.iter().any(|warp| warp.live != 0) {
            if let Some(random) = &mut self.random {
                random.shuffle(&mut order);
            }
            let mut progress = false;
            for &number in &order {
                let before = warps[number].instructions;
                let turn = match &mut self.random {
                    Some(random) => 1 + random.below(64),
                    None => TURN,
                };
                self.warp = number;
                self.run(&mut warps[number], turn)?;
                progress |= warps[number].instructions != before;
                progress |= self.settle_barriers(warps)?;
                if warps[number].instructions > self.launch.config.instruction_limit {
                    let message = format!("more than {before} instructions in one warp");
                    return Err(Fault::new(FindingKind::NoProgress, message));
                }
            }
            if !progress {
                return Err(self.stuck(warps));
            }
        }
        Ok(())
    }
}
