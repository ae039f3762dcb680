//! Executes `cp.async`: a copy reaches shared memory when its issuer waits for its group, and not
//! before.
use super::block::Runner;
use super::warp::{Flight, Warp, of};
use crate::finding::{Checked, Fault, FindingKind};
use crate::memory::{DeviceCursor, Kind};
use crate::op::{Address, Reg};
use crate::ptx::types::Space;

impl Runner<'_> {
    pub(super) fn copy_async(
        &mut self,
        warp: &mut Warp,
        active: u32,
        target: Address,
        source: Address,
        bytes: u32,
        available: Reg,
    ) -> Checked<()> {
        let targets = self
            .addresses(warp, active, target)?
            .map(|address| address & 0xffff_ffff);
        let sources = self.addresses(warp, active, source)?;
        let available = *warp.read(self.kernel, available, active)?;
        let reading = of(active)
            .filter(|lane| available[*lane] > 0)
            .fold(0, |m, lane| m | 1 << lane);
        if reading != 0 {
            self.count_access(Space::Global, &sources, reading, u64::from(bytes), false);
        }
        self.count_access(Space::Shared, &targets, active, u64::from(bytes), true);
        let mut cursor = DeviceCursor::new(self.memory, self.order);
        let size = bytes as usize;
        for lane in of(active) {
            let flight = self
                .depart(
                    &mut cursor,
                    warp.number,
                    lane,
                    targets[lane],
                    sources[lane],
                    size,
                    available[lane],
                )
                .map_err(|fault| fault.in_lane(lane as u32))?;
            warp.flights[lane].open.push(flight);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the operands of one instruction")]
    fn depart(
        &mut self,
        cursor: &mut DeviceCursor<'_>,
        warp: usize,
        lane: usize,
        target: u64,
        source: u64,
        bytes: usize,
        available: u64,
    ) -> Checked<Flight> {
        let offset = self.shared.locate(target, bytes as u64)?;
        self.shared.check_landed(offset, bytes)?;
        // From now on the bytes may change at any time.
        self.touch_shared(warp, lane, offset, bytes, Kind::Write)?;
        if available > bytes as u64 {
            let message = format!("cp.async of {bytes} bytes with {available} in the source");
            return Err(Fault::new(FindingKind::OutOfBounds, message));
        }
        if available > 0 && !source.is_multiple_of(bytes as u64) {
            let message = format!("cp.async of {bytes} bytes from {source:#x}");
            return Err(Fault::new(FindingKind::Misaligned, message));
        }
        let (mut value, mut at) = (0u128, 0u64);
        while at < available {
            // The largest aligned piece; the rest stays zero.
            let mut piece = if at == 0 {
                bytes as u64
            } else {
                1 << at.trailing_zeros()
            };
            while piece > available - at {
                piece /= 2;
            }
            let part =
                self.load_global(cursor, warp, lane, source + at, piece as usize, Kind::Read)?;
            value |= part << (8 * at);
            at += piece;
        }
        self.shared.depart(offset, bytes);
        Ok(Flight {
            target: offset as u32,
            bytes: bytes as u32,
            value,
        })
    }

    pub(super) fn commit(warp: &mut Warp, active: u32) {
        for lane in of(active) {
            let flights = &mut warp.flights[lane];
            let group = std::mem::take(&mut flights.open);
            flights.committed.push_back(group);
        }
    }

    /// Completes all groups but the `pending` latest; with `None`, also copies that no group holds
    /// yet.
    pub(super) fn wait_for_copies(
        &mut self,
        warp: &mut Warp,
        active: u32,
        pending: Option<u32>,
    ) -> Checked<()> {
        for lane in of(active) {
            let flights = &mut warp.flights[lane];
            if pending.is_none() {
                let group = std::mem::take(&mut flights.open);
                flights.committed.push_back(group);
            }
            let keep = pending.unwrap_or(0) as usize;
            let landing = flights.committed.len().saturating_sub(keep);
            let landed: Vec<_> = flights.committed.drain(..landing).flatten().collect();
            for flight in landed {
                let (offset, bytes) = (flight.target as usize, flight.bytes as usize);
                self.shared.land(offset, bytes);
                self.touch_shared(warp.number, lane, offset, bytes, Kind::Write)
                    .map_err(|fault| fault.in_lane(lane as u32))?;
                self.shared.set(offset, bytes, flight.value);
            }
        }
        Ok(())
    }
}
