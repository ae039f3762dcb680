//! State of a warp: rows of registers, predicates, program counters, local memory.
use crate::decode::{Kernel, Special};
use crate::finding::{Checked, Fault, FindingKind};
use crate::lanes::Row;
use crate::memory::CheckedBytes;
use crate::op::{Predicate, Reg};
use std::collections::VecDeque;

/// An asynchronous copy that was issued and has not completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub target: u32,
    pub bytes: u32,
    pub value: u128,
}

/// Asynchronous copies of one thread: committed groups, and the current group.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights {
    pub committed: VecDeque<Vec<Flight>>,
    pub open: Vec<Flight>,
}

/// A barrier that lanes of the warp wait at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub barrier: usize,
    /// Place of the instruction.
    pub pc: u32,
}

pub(super) struct Warp {
    pub number: usize,
    pub rows: Vec<Row>,
    /// For each row, the lanes that have set it.
    pub defined: Vec<u32>,
    pub predicates: Vec<u32>,
    pub predicates_defined: Vec<u32>,
    pub pc: [u32; 32],
    /// Lanes with a thread.
    pub everyone: u32,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes waiting at a barrier, and their barrier.
    pub waiting: u32,
    pub waits_at: Option<Waiting>,
    /// Lanes waiting at a warp operation for the other lanes of its mask.
    pub parked: u32,
    pub carry: u32,
    pub local: Vec<CheckedBytes>,
    pub flights: Vec<Flights>,
    pub instructions: u64,
}

impl Warp {
    pub(super) fn new(kernel: &Kernel, number: usize) -> Self {
        let (rows, predicates) = (kernel.register_names.len(), kernel.predicate_names.len());
        let local = if kernel.local_bytes == 0 { 0 } else { 32 };
        let local_bytes = (kernel.local_bytes as usize).next_multiple_of(64);
        Self {
            number,
            rows: vec![[0; 32]; rows],
            defined: vec![0; rows],
            predicates: vec![0; predicates],
            predicates_defined: vec![0; predicates],
            pc: [0; 32],
            everyone: 0,
            live: 0,
            waiting: 0,
            waits_at: None,
            parked: 0,
            carry: 0,
            local: (0..local).map(|_| CheckedBytes::new(local_bytes)).collect(),
            flights: vec![Flights::default(); 32],
            instructions: 0,
        }
    }

    /// Prepares the warp for a block of `threads` threads.
    pub(super) fn start(&mut self, kernel: &Kernel, threads: u32, place: &Placement) {
        let first = self.number as u32 * 32;
        let count = (threads - first).min(32);
        self.everyone = if count == 32 { !0 } else { (1 << count) - 1 };
        self.live = self.everyone;
        self.defined.fill(0);
        self.predicates_defined.fill(0);
        self.pc = [0; 32];
        (self.waiting, self.waits_at, self.parked) = (0, None, 0);
        self.local
            .iter_mut()
            .for_each(|memory| memory.reset(memory.len()));
        self.flights
            .iter_mut()
            .for_each(|flights| *flights = Flights::default());
        self.instructions = 0;
        for (special, reg) in &kernel.specials {
            let row = reg.0 as usize;
            self.rows[row] = place.special(*special, self.number as u32);
            self.defined[row] = !0;
        }
    }

    /// Reads a row for `lanes`, all of which must have set it.
    #[inline(always)]
    pub(super) fn read<'a>(&'a self, kernel: &'a Kernel, reg: Reg, lanes: u32) -> Checked<&'a Row> {
        if reg.0 & Reg::CONSTANT != 0 {
            return Ok(&kernel.constants[(reg.0 & !Reg::CONSTANT) as usize]);
        }
        let row = reg.0 as usize;
        if lanes & !self.defined[row] != 0 {
            return Err(unset(
                &kernel.register_names[row],
                lanes & !self.defined[row],
            ));
        }
        Ok(&self.rows[row])
    }

    /// Sets the row for `lanes`.
    #[inline(always)]
    pub(super) fn write(&mut self, reg: Reg, values: &Row, lanes: u32) {
        let row = reg.0 as usize;
        self.defined[row] |= lanes;
        if lanes == !0 {
            self.rows[row] = *values;
            return;
        }
        let target = &mut self.rows[row];
        for i in 0..32 {
            let take = 0u64.wrapping_sub(u64::from(lanes >> i & 1));
            target[i] = (values[i] & take) | (target[i] & !take);
        }
    }

    /// Sets one lane.
    #[inline(always)]
    pub(super) fn write_lane(&mut self, reg: Reg, lane: usize, value: u64) {
        self.defined[reg.0 as usize] |= 1 << lane;
        self.rows[reg.0 as usize][lane] = value;
    }

    /// Marks the row as unset for `lanes`.
    pub(super) fn forget(&mut self, reg: Reg, lanes: u32) {
        self.defined[reg.0 as usize] &= !lanes;
    }

    #[inline(always)]
    pub(super) fn read_predicate(&self, kernel: &Kernel, p: Predicate, lanes: u32) -> Checked<u32> {
        let (number, flip) = match p {
            Predicate::Constant(value) => return Ok(if value { !0 } else { 0 }),
            Predicate::Register(number) => (number as usize, 0),
            Predicate::Not(number) => (number as usize, !0),
        };
        let missing = lanes & !self.predicates_defined[number];
        if missing != 0 {
            return Err(unset(&kernel.predicate_names[number], missing));
        }
        Ok(self.predicates[number] ^ flip)
    }

    #[inline(always)]
    pub(super) fn write_predicate(&mut self, number: u32, values: u32, lanes: u32) {
        let number = number as usize;
        let old = self.predicates[number];
        self.predicates[number] = (old & !lanes) | (values & lanes);
        self.predicates_defined[number] |= lanes;
    }

    /// Moves the program counters of `lanes`.
    pub(super) fn jump(&mut self, lanes: u32, pc: u32) {
        for lane in of(lanes) {
            self.pc[lane] = pc;
        }
    }
}

#[cold]
fn unset(name: &str, lanes: u32) -> Box<Fault> {
    let lane = lanes.trailing_zeros();
    Fault::new(
        FindingKind::UnsetRegister,
        format!("{name} is read before it is set"),
    )
    .in_lane(lane)
}

/// The lanes of a mask.
#[inline(always)]
pub(super) fn of(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let lane = left.trailing_zeros() as usize;
        left &= left - 1;
        Some(lane)
    })
}

/// Index of a block in its grid, and the sizes of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    pub block: [u32; 3],
    pub grid_shape: [u32; 3],
    pub block_shape: [u32; 3],
    pub dynamic_shared: u32,
    pub total_shared: u32,
}

impl Placement {
    pub(super) fn thread(&self, index: u32) -> [u32; 3] {
        let [x, y, _] = self.block_shape;
        [index % x, index / x % y, index / x / y]
    }

    fn special(&self, special: Special, warp: u32) -> Row {
        let by_lane = |f: &dyn Fn(u32) -> u32| {
            let mut row = [0; 32];
            (0..32u32).for_each(|lane| row[lane as usize] = u64::from(f(lane)));
            row
        };
        let threads: u32 = self.block_shape.iter().product();
        match special {
            Special::Thread(axis) => by_lane(&|lane| self.thread(warp * 32 + lane)[axis]),
            Special::BlockShape(axis) => [u64::from(self.block_shape[axis]); 32],
            Special::Block(axis) => [u64::from(self.block[axis]); 32],
            Special::GridShape(axis) => [u64::from(self.grid_shape[axis]); 32],
            Special::Lane => by_lane(&|lane| lane),
            Special::Warp => [u64::from(warp); 32],
            Special::Warps => [u64::from(threads.div_ceil(32)); 32],
            Special::MaskEqual => by_lane(&|lane| 1 << lane),
            Special::MaskLess => by_lane(&|lane| (1 << lane) - 1),
            Special::MaskLessEqual => by_lane(&|lane| ((1 << lane) - 1) | (1 << lane)),
            Special::MaskGreater => by_lane(&|lane| !(((1 << lane) - 1) | (1 << lane))),
            Special::MaskGreaterEqual => by_lane(&|lane| !((1 << lane) - 1)),
            Special::DynamicShared => [u64::from(self.dynamic_shared); 32],
            Special::TotalShared => [u64::from(self.total_shared); 32],
            Special::Zero => [0; 32],
        }
    }
}
