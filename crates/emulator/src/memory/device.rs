//! Device memory from the view of the host: allocate, free, copy, fill.
//!
//! Every allocation has its own slot of 2^40 addresses and starts in the middle of it, so that an
//! index that is wrong by any 32-bit amount reaches no other allocation. Slots are never reused, so
//! that an access after a free is distinguished from a wild one.
use super::access::{Access, Kind};
use super::allocation::{Allocation, AllocationInfo};
use super::order::Order;
use super::shadow::{Judge, Race};
use crate::EmulatorError;
use crate::finding::{Checked, Fault, Finding, FindingKind, Place};

const SLOT_LOG2: u32 = 40;
const MIDDLE: u64 = 1 << (SLOT_LOG2 - 1);
const MOST_SLOTS: usize = (1 << 23) - 1;

enum Slot {
    Live(Box<Allocation>),
    Freed(AllocationInfo),
}

/// Device memory: allocations in a sparse 64-bit address space.
#[derive(Default)]
pub struct DeviceMemory {
    slots: Vec<Slot>,
}

/// A host operation comes after everything in its order, and after nothing else.
impl Judge for Order {
    fn is_before(&self, earlier: &Access) -> bool {
        self.is_after(earlier.operation)
    }
}

fn host_access(order: &Order, kind: Kind) -> Access {
    Access {
        operation: order.operation,
        kind,
        ..Access::NONE
    }
}

pub(crate) fn dependency(race: Race) -> Box<Fault> {
    let verb = if race.now.is_read() {
        "reads what"
    } else {
        "overwrites what"
    };
    let did = if race.earlier.kind.is_read() {
        "read"
    } else {
        "wrote"
    };
    let who = race.earlier.describe();
    Fault::new(
        FindingKind::MissingDependency,
        format!(
            "{verb} an earlier operation of another stream {did} ({who}); no event orders them"
        ),
    )
}

impl DeviceMemory {
    /// Creates a memory without allocations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reserves `bytes` bytes and returns their address. Nothing is stored until it is touched.
    pub fn allocate(&mut self, bytes: u64, label: &str) -> Result<u64, EmulatorError> {
        self.insert(bytes, label, false)
    }

    pub(crate) fn insert(
        &mut self,
        bytes: u64,
        label: &str,
        is_constant: bool,
    ) -> Result<u64, EmulatorError> {
        if bytes > MIDDLE || self.slots.len() >= MOST_SLOTS {
            return Err(EmulatorError::OutOfMemory(bytes));
        }
        let base = ((self.slots.len() as u64 + 1) << SLOT_LOG2) + MIDDLE;
        let info = AllocationInfo {
            base,
            bytes,
            label: label.into(),
        };
        self.slots
            .push(Slot::Live(Box::new(Allocation::new(info, is_constant))));
        Ok(base)
    }

    /// Frees the allocation at `address`, after everything that uses it.
    pub fn free(&mut self, address: u64, order: Option<&Order>) -> Result<(), Box<Finding>> {
        let fail = |fault: Box<Fault>| Box::new(fault.at(Place::Host("free")));
        let (allocation, offset) = self.find(address, 0).map_err(fail)?;
        let info = allocation.info.clone();
        if offset != 0 {
            let message = format!("free of {address:#x}, where no allocation starts");
            return Err(fail(Fault::new(FindingKind::OutOfBounds, message).of(info)));
        }
        let used = allocation
            .used_by
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone();
        if order.is_some_and(|order| !order.is_after_all(&used)) {
            let message = "freed while an operation of another stream may still use it";
            return Err(fail(
                Fault::new(FindingKind::MissingDependency, message).of(info),
            ));
        }
        let index = (address >> SLOT_LOG2) as usize - 1;
        self.slots[index] = Slot::Freed(info);
        Ok(())
    }

    /// The live allocation that holds `bytes` bytes at `address`, with the offset in it.
    pub(super) fn find(&self, address: u64, bytes: u64) -> Checked<(&Allocation, u64)> {
        let slot = (address >> SLOT_LOG2) as usize;
        match slot.checked_sub(1).and_then(|index| self.slots.get(index)) {
            Some(Slot::Live(allocation)) => {
                let info = &allocation.info;
                let offset = address.wrapping_sub(info.base);
                if offset <= info.bytes && info.bytes - offset >= bytes {
                    return Ok((allocation, offset));
                }
                let message = if address < info.base {
                    format!(
                        "{bytes} bytes at {address:#x}, {} before its start",
                        info.base - address
                    )
                } else {
                    let past = offset.saturating_add(bytes) - info.bytes;
                    format!("{bytes} bytes at {address:#x}, ending {past} past its end")
                };
                Err(Fault::new(FindingKind::OutOfBounds, message).of(info.clone()))
            }
            Some(Slot::Freed(info)) => {
                let message = format!("{bytes} bytes at {address:#x}, which was freed");
                Err(Fault::new(FindingKind::UseAfterFree, message).of(info.clone()))
            }
            None => {
                let message = format!("{bytes} bytes at {address:#x}, which no allocation holds");
                Err(Fault::new(FindingKind::OutOfBounds, message))
            }
        }
    }

    /// Description of the live allocation that holds `address`.
    pub fn allocation_at(&self, address: u64) -> Option<AllocationInfo> {
        self.find(address, 0)
            .ok()
            .map(|(allocation, _)| allocation.info.clone())
    }

    /// Number of stored pages in all allocations.
    pub fn resident_pages(&self) -> usize {
        let live = |slot: &Slot| match slot {
            Slot::Live(allocation) => allocation.resident_pages(),
            Slot::Freed(_) => 0,
        };
        self.slots.iter().map(live).sum()
    }

    /// Copies `source` to `address`.
    pub fn write(
        &mut self,
        address: u64,
        source: &[u8],
        order: &Order,
    ) -> Result<(), Box<Finding>> {
        self.store(address, source, order)
            .map_err(|fault| Box::new(fault.at(Place::Host("copy to device"))))
    }

    fn store(&self, address: u64, source: &[u8], order: &Order) -> Checked<()> {
        let (allocation, offset) = self.find(address, source.len() as u64)?;
        allocation.note_use(order);
        let access = host_access(order, Kind::Write);
        for (at, count) in Allocation::pieces(offset, source.len() as u64) {
            let mut page = allocation.page(at);
            let (inside, from) = (
                (at % super::allocation::PAGE) as usize,
                (at - offset) as usize,
            );
            let raced = page.shadow.touch_range(inside, count, access, order);
            raced.map_err(|race| dependency(race).of(allocation.info.clone()))?;
            page.bytes.write(inside, &source[from..from + count]);
        }
        Ok(())
    }

    /// Writes the initial bytes of a new allocation, ordered before everything.
    pub(crate) fn initialise(&self, address: u64, source: &[u8]) {
        let Ok((allocation, offset)) = self.find(address, source.len() as u64) else {
            return;
        };
        for (at, count) in Allocation::pieces(offset, source.len() as u64) {
            let from = (at - offset) as usize;
            let inside = (at % super::allocation::PAGE) as usize;
            allocation
                .page(at)
                .bytes
                .write(inside, &source[from..from + count]);
        }
    }

    /// Copies from `address` to `target`; a byte that was never written is a finding.
    pub fn read(&self, address: u64, target: &mut [u8], order: &Order) -> Result<(), Box<Finding>> {
        self.load(address, target, order)
            .map_err(|fault| Box::new(fault.at(Place::Host("copy from device"))))
    }

    fn load(&self, address: u64, target: &mut [u8], order: &Order) -> Checked<()> {
        let (allocation, offset) = self.find(address, target.len() as u64)?;
        allocation.note_use(order);
        let access = host_access(order, Kind::Read);
        for (at, count) in Allocation::pieces(offset, target.len() as u64) {
            let mut page = allocation.page(at);
            let (inside, from) = (
                (at % super::allocation::PAGE) as usize,
                (at - offset) as usize,
            );
            let raced = page.shadow.touch_range(inside, count, access, order);
            raced.map_err(|race| dependency(race).of(allocation.info.clone()))?;
            if let Some(unwritten) = page.bytes.read(inside, &mut target[from..from + count]) {
                let byte = at - inside as u64 + unwritten as u64;
                let message = format!("byte {byte} of the allocation was never written");
                return Err(
                    Fault::new(FindingKind::UninitialisedRead, message).of(allocation.info.clone())
                );
            }
        }
        Ok(())
    }

    /// Fills `bytes` bytes at `address`. A fill of a whole allocation stores nothing.
    pub fn fill(
        &mut self,
        address: u64,
        value: u8,
        bytes: u64,
        order: &Order,
    ) -> Result<(), Box<Finding>> {
        self.set(address, value, bytes, order)
            .map_err(|fault| Box::new(fault.at(Place::Host("fill"))))
    }

    fn set(&mut self, address: u64, value: u8, bytes: u64, order: &Order) -> Checked<()> {
        let access = host_access(order, Kind::Write);
        let (allocation, offset) = self.find(address, bytes)?;
        allocation.note_use(order);
        let info = allocation.info.clone();
        let whole = offset == 0 && bytes == info.bytes;
        let touch = |at: u64, count: usize, store: bool| -> Checked<()> {
            let mut page = allocation.page(at);
            let inside = (at % super::allocation::PAGE) as usize;
            let raced = page.shadow.touch_range(inside, count, access, order);
            raced.map_err(|race| dependency(race).of(info.clone()))?;
            if store {
                page.bytes.fill(inside, count, value);
            }
            Ok(())
        };
        if !whole {
            return Allocation::pieces(offset, bytes).try_for_each(|(at, n)| touch(at, n, true));
        }
        let page_bytes = |at: u64| super::allocation::PAGE.min(info.bytes - at) as usize;
        allocation
            .resident()
            .try_for_each(|at| touch(at, page_bytes(at), false))?;
        let index = (address >> SLOT_LOG2) as usize - 1;
        if let Some(Slot::Live(allocation)) = self.slots.get_mut(index) {
            allocation.set_background(value, access);
        }
        Ok(())
    }

    /// Copies between device addresses.
    pub fn copy(
        &mut self,
        target: u64,
        source: u64,
        bytes: u64,
        order: &Order,
    ) -> Result<(), Box<Finding>> {
        let fail = |fault: Box<Fault>| Box::new(fault.at(Place::Host("copy on device")));
        let mut buffer = Vec::new();
        for (at, count) in Allocation::pieces(0, bytes) {
            buffer.resize(count, 0);
            self.load(source.wrapping_add(at), &mut buffer, order)
                .map_err(fail)?;
            self.store(target.wrapping_add(at), &buffer, order)
                .map_err(fail)?;
        }
        Ok(())
    }
}
