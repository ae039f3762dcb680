//! Executes loads and stores of all spaces, and checks them lane by lane.
use super::block::Runner;
use super::clock::LaneJudge;
use super::warp::{Warp, of};
use crate::finding::{Checked, Fault, FindingKind};
use crate::lanes::Row;
use crate::memory::{
    DeviceCursor, Kind, LOCAL_WINDOW, PARAM_WINDOW, Race, SHARED_WINDOW, WINDOWS_END, dependency,
};
use crate::op::{Address, Ordering, Reg};
use crate::ptx::types::{ScalarType, Space};

/// Space of an address, and the address within it.
#[inline(always)]
pub(super) fn resolve(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic => match address {
            SHARED_WINDOW..LOCAL_WINDOW => (Space::Shared, address - SHARED_WINDOW),
            LOCAL_WINDOW..PARAM_WINDOW => (Space::Local, address - LOCAL_WINDOW),
            PARAM_WINDOW..WINDOWS_END => (Space::Param, address - PARAM_WINDOW),
            _ => (Space::Global, address),
        },
        Space::Global => (Space::Global, address),
        // Addresses of the small spaces have 32 bits.
        small => (small, address & 0xffff_ffff),
    }
}

pub(super) fn race(race: Race, operation: u32, place: &str) -> Box<Fault> {
    if race.earlier.operation != operation {
        return dependency(race);
    }
    let now = match race.now {
        Kind::Read | Kind::AtomicRead => "reads",
        Kind::Write => "writes",
        Kind::Atomic => "atomically updates",
    };
    let did = match race.earlier.kind {
        Kind::Read | Kind::AtomicRead => "read",
        Kind::Write => "wrote",
        Kind::Atomic => "atomically updated",
    };
    let who = race.earlier.describe();
    Fault::new(
        FindingKind::Race,
        format!("{now} {place}, which {who} {did}, with nothing to order the two"),
    )
}

impl Runner<'_> {
    pub(super) fn addresses(&self, warp: &Warp, active: u32, address: Address) -> Checked<Row> {
        let mut row = *warp.read(self.kernel, address.base, active)?;
        row.iter_mut()
            .for_each(|x| *x = x.wrapping_add(address.offset as u64));
        Ok(row)
    }

    /// Counts one warp access; its space is that of the first lane.
    pub(super) fn count_access(
        &mut self,
        space: Space,
        addresses: &Row,
        active: u32,
        bytes: u64,
        store: bool,
    ) {
        if !self.launch.config.checks.counters {
            return;
        }
        match resolve(space, addresses[active.trailing_zeros() as usize & 31]).0 {
            Space::Global => self.counters.count_sectors(addresses, active, bytes, store),
            Space::Shared => self.counters.count_passes(addresses, active, bytes),
            _ => {}
        }
    }

    pub(super) fn load(
        &mut self,
        warp: &mut Warp,
        active: u32,
        (space, ty, ordering): (Space, ScalarType, Ordering),
        targets: &[Option<Reg>],
        widths: u32,
        address: Address,
    ) -> Checked<()> {
        let addresses = self.addresses(warp, active, address)?;
        let element = ty.bytes();
        let bytes = element * targets.len();
        self.count_access(space, &addresses, active, bytes as u64, false);
        let kind = if ordering == Ordering::Weak {
            Kind::Read
        } else {
            Kind::AtomicRead
        };
        let mut cursor = DeviceCursor::new(self.memory, self.order);
        let shift = 64 - ty.bits();
        let keep = u64::MAX >> (64 - widths.clamp(1, 64));
        for lane in of(active) {
            let value = self
                .load_lane(&mut cursor, warp, lane, space, addresses[lane], bytes, kind)
                .map_err(|fault| fault.in_lane(lane as u32))?;
            for (i, target) in targets.iter().enumerate() {
                let Some(target) = target else { continue };
                let raw = (value >> (i as u32 * ty.bits())) as u64;
                let extended = if ty.is_signed() {
                    ((raw << shift) as i64 >> shift) as u64 & keep
                } else {
                    raw << shift >> shift
                };
                warp.write_lane(*target, lane, extended);
            }
            if kind == Kind::AtomicRead {
                self.obtain(warp, lane, addresses[lane]);
            }
        }
        if ordering == Ordering::Acquire {
            self.clock.fence(warp.number, active);
        }
        Ok(())
    }

    pub(super) fn obtain(&mut self, warp: &Warp, lane: usize, address: u64) {
        if let Some(releases) = self.releases.obtain(address) {
            self.clock.obtained(warp.number, lane, releases);
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the operands of one instruction")]
    fn load_lane(
        &mut self,
        cursor: &mut DeviceCursor<'_>,
        warp: &Warp,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
        kind: Kind,
    ) -> Checked<u128> {
        match resolve(space, address) {
            (Space::Shared, at) => self.load_shared(warp.number, lane, at, bytes, kind),
            (Space::Local, at) => {
                let memory = &warp.local.get(lane);
                let offset = bounded("local", at, bytes, self.kernel.local_bytes)?;
                match memory {
                    Some(memory) if memory.is_written(offset, bytes) => {
                        Ok(memory.get(offset, bytes))
                    }
                    _ => {
                        let message =
                            format!("{bytes} bytes of local memory at {at:#x}, never written");
                        Err(Fault::new(FindingKind::UninitialisedRead, message))
                    }
                }
            }
            (Space::Param, at) => {
                let parameters = self.launch.parameters;
                let offset = bounded("parameter", at, bytes, parameters.len() as u64)?;
                let mut raw = [0; 16];
                raw[..bytes].copy_from_slice(&parameters[offset..offset + bytes]);
                Ok(u128::from_le_bytes(raw))
            }
            (_, address) => self.load_global(cursor, warp.number, lane, address, bytes, kind),
        }
    }

    #[inline(always)]
    pub(super) fn load_global(
        &mut self,
        cursor: &mut DeviceCursor<'_>,
        warp: usize,
        lane: usize,
        address: u64,
        bytes: usize,
        kind: Kind,
    ) -> Checked<u128> {
        let now = self.access(warp, lane, kind);
        let judge = LaneJudge {
            clock: &self.clock,
            order: self.order,
            warp,
            lane: lane as u32,
        };
        let checks = self.launch.config.checks;
        let (page, offset) = cursor.locate(address, bytes as u64)?;
        if checks.uninitialised && !page.bytes.is_written(offset, bytes) {
            return Err(unwritten(cursor, address, bytes));
        }
        if checks.races
            && let Err(found) = page.shadow.touch(offset, bytes, now, &judge)
        {
            return Err(self.global_race(cursor, found, address, bytes));
        }
        Ok(page.bytes.get(offset, bytes))
    }

    #[cold]
    pub(super) fn global_race(
        &self,
        cursor: &DeviceCursor<'_>,
        found: Race,
        address: u64,
        bytes: usize,
    ) -> Box<Fault> {
        let allocation = cursor.allocation();
        let offset = allocation.as_ref().map_or(0, |a| address - a.base);
        let place = format!("{bytes} bytes at offset {offset}");
        let mut fault = race(found, self.order.operation, &place);
        fault.allocation = allocation;
        fault
    }

    #[inline(always)]
    pub(super) fn load_shared(
        &mut self,
        warp: usize,
        lane: usize,
        at: u64,
        bytes: usize,
        kind: Kind,
    ) -> Checked<u128> {
        let offset = self.shared.locate(at, bytes as u64)?;
        self.shared.check_landed(offset, bytes)?;
        self.shared.check_written(offset, bytes)?;
        self.touch_shared(warp, lane, offset, bytes, kind)?;
        Ok(self.shared.get(offset, bytes))
    }

    #[inline(always)]
    pub(super) fn touch_shared(
        &mut self,
        warp: usize,
        lane: usize,
        offset: usize,
        bytes: usize,
        kind: Kind,
    ) -> Checked<()> {
        if !self.launch.config.checks.races {
            return Ok(());
        }
        let now = self.access(warp, lane, kind);
        let judge = LaneJudge {
            clock: &self.clock,
            order: self.order,
            warp,
            lane: lane as u32,
        };
        self.shared
            .touch(offset, bytes, now, &judge)
            .map_err(|found| {
                let place = format!("{bytes} bytes of shared memory at {offset:#x}");
                race(found, self.order.operation, &place)
            })
    }

    pub(super) fn store(
        &mut self,
        warp: &mut Warp,
        active: u32,
        (space, ty, ordering): (Space, ScalarType, Ordering),
        values: &[Reg],
        address: Address,
    ) -> Checked<()> {
        let addresses = self.addresses(warp, active, address)?;
        let bytes = ty.bytes() * values.len();
        self.count_access(space, &addresses, active, bytes as u64, true);
        if ordering == Ordering::Release {
            self.clock.fence(warp.number, active);
        }
        let kind = if ordering == Ordering::Weak {
            Kind::Write
        } else {
            Kind::Atomic
        };
        let mut data = [0u128; 32];
        let mask = u64::MAX >> (64 - ty.bits());
        for (i, value) in values.iter().enumerate() {
            let row = warp.read(self.kernel, *value, active)?;
            for lane in 0..32 {
                data[lane] |= u128::from(row[lane] & mask) << (i as u32 * ty.bits());
            }
        }
        let mut cursor = DeviceCursor::new(self.memory, self.order);
        for lane in of(active) {
            if kind == Kind::Atomic {
                let released = self.clock.released_by(warp.number, lane);
                self.releases.publish(addresses[lane], released, false);
            }
            self.store_lane(
                &mut cursor,
                warp,
                lane,
                space,
                addresses[lane],
                bytes,
                data[lane],
                kind,
            )
            .map_err(|fault| fault.in_lane(lane as u32))?;
        }
        Ok(())
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the operands of one instruction")]
    fn store_lane(
        &mut self,
        cursor: &mut DeviceCursor<'_>,
        warp: &mut Warp,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
        value: u128,
        kind: Kind,
    ) -> Checked<()> {
        match resolve(space, address) {
            (Space::Shared, at) => self.store_shared(warp.number, lane, at, bytes, value, kind),
            (Space::Local, at) => {
                let offset = bounded("local", at, bytes, self.kernel.local_bytes)?;
                warp.local[lane].set(offset, bytes, value);
                Ok(())
            }
            (Space::Param, at) => Err(Fault::new(
                FindingKind::ReadOnly,
                format!("write to parameters at {at:#x}"),
            )),
            (_, address) => {
                let now = self.access(warp.number, lane, kind);
                let (warp, order) = (warp.number, self.order);
                let judge = LaneJudge {
                    clock: &self.clock,
                    order,
                    warp,
                    lane: lane as u32,
                };
                let (page, offset) = cursor.locate(address, bytes as u64)?;
                if self.launch.config.checks.races
                    && let Err(found) = page.shadow.touch(offset, bytes, now, &judge)
                {
                    return Err(self.global_race(cursor, found, address, bytes));
                }
                page.bytes.set(offset, bytes, value);
                cursor.check_writable()
            }
        }
    }

    #[inline(always)]
    pub(super) fn store_shared(
        &mut self,
        warp: usize,
        lane: usize,
        at: u64,
        bytes: usize,
        value: u128,
        kind: Kind,
    ) -> Checked<()> {
        let offset = self.shared.locate(at, bytes as u64)?;
        self.shared.check_landed(offset, bytes)?;
        self.touch_shared(warp, lane, offset, bytes, kind)?;
        self.shared.set(offset, bytes, value);
        Ok(())
    }
}

#[cold]
pub(super) fn unwritten(cursor: &DeviceCursor<'_>, address: u64, bytes: usize) -> Box<Fault> {
    let allocation = cursor.allocation();
    let offset = allocation.as_ref().map_or(0, |a| address - a.base);
    let message = format!("{bytes} bytes at offset {offset}, which nobody has written");
    let mut fault = Fault::new(FindingKind::UninitialisedRead, message);
    fault.allocation = allocation;
    fault
}

/// Offset of an aligned access inside `length` bytes.
fn bounded(space: &str, at: u64, bytes: usize, length: u64) -> Checked<usize> {
    if !at.is_multiple_of(bytes as u64) {
        let message = format!("{bytes}-byte access at {space} address {at:#x}");
        return Err(Fault::new(FindingKind::Misaligned, message));
    }
    if at + bytes as u64 > length {
        let message = format!("{bytes} bytes at {space} address {at:#x} of {length} bytes");
        return Err(Fault::new(FindingKind::OutOfBounds, message));
    }
    Ok(at as usize)
}
