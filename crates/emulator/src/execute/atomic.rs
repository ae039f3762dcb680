//! Executes atomic read-modify-write operations on device and shared memory.
use super::access::{resolve, unwritten};
use super::block::Runner;
use super::clock::LaneJudge;
use super::warp::{Warp, of};
use crate::finding::{Checked, Fault, FindingKind};
use crate::lanes::rounding::Rounding;
use crate::lanes::{Binary16, Brain16};
use crate::memory::{DeviceCursor, Kind};
use crate::op::{AtomicAccess, AtomicOp, Ordering};
use crate::ptx::types::{ScalarType, Space};

fn add_halves(ty: ScalarType, a: u64, b: u64) -> u64 {
    let one = |a: u16, b: u16| {
        // Two 16-bit numbers: their sum is exact in `f64`.
        if matches!(ty, ScalarType::F16 | ScalarType::F16x2) {
            let sum = f64::from(Binary16(a).to_f32()) + f64::from(Binary16(b).to_f32());
            u64::from(Binary16::from_f64(sum, Rounding::Nearest).0)
        } else {
            use crate::lanes::rounding::sum_to_odd;
            let sum = sum_to_odd(Brain16(a).to_f32().into(), Brain16(b).to_f32().into());
            u64::from(Brain16::from_f64(sum, Rounding::Nearest).0)
        }
    };
    let low = one(a as u16, b as u16);
    if ty.bits() == 16 {
        low
    } else {
        low | one((a >> 16) as u16, (b >> 16) as u16) << 16
    }
}

/// Value after the operation.
fn update(op: AtomicOp, ty: ScalarType, old: u64, b: u64, c: u64) -> u64 {
    use ScalarType::*;
    let wide = ty.bits() == 64;
    let cut = |value: u64| {
        if wide {
            value
        } else {
            value & (u64::MAX >> (64 - ty.bits()))
        }
    };
    let signed = |value: u64| {
        if wide {
            value as i64
        } else {
            i64::from(value as i32)
        }
    };
    match (op, ty) {
        (AtomicOp::Add, F32) => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(b as u32);
            u64::from(if sum.is_nan() {
                0x7fff_ffff
            } else {
                sum.to_bits()
            })
        }
        (AtomicOp::Add, F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (AtomicOp::Add, F16 | BF16 | F16x2 | BF16x2) => add_halves(ty, old, b),
        (AtomicOp::Add, _) => cut(old.wrapping_add(b)),
        (AtomicOp::Min, _) if ty.is_signed() => {
            if signed(old) <= signed(b) {
                old
            } else {
                b
            }
        }
        (AtomicOp::Max, _) if ty.is_signed() => {
            if signed(old) >= signed(b) {
                old
            } else {
                b
            }
        }
        (AtomicOp::Min, _) => old.min(b),
        (AtomicOp::Max, _) => old.max(b),
        (AtomicOp::And, _) => old & b,
        (AtomicOp::Or, _) => old | b,
        (AtomicOp::Xor, _) => old ^ b,
        (AtomicOp::Exchange, _) => b,
        (AtomicOp::CompareAndSwap, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (AtomicOp::Increment, _) => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        (AtomicOp::Decrement, _) => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

impl Runner<'_> {
    /// Executes the lanes in order; the order within a warp instruction is unspecified.
    pub(super) fn atomic(
        &mut self,
        warp: &mut Warp,
        active: u32,
        access: &AtomicAccess,
    ) -> Checked<()> {
        let addresses = self.addresses(warp, active, access.address)?;
        let (b, c) = (
            *warp.read(self.kernel, access.b, active)?,
            *warp.read(self.kernel, access.c, active)?,
        );
        let bytes = access.ty.bytes();
        self.count_access(access.space, &addresses, active, bytes as u64, true);
        if matches!(
            access.ordering,
            Ordering::Release | Ordering::AcquireRelease
        ) {
            self.clock.fence(warp.number, active);
        }
        let mut cursor = DeviceCursor::new(self.memory, self.order);
        for lane in of(active) {
            let (address, number) = (addresses[lane], warp.number);
            // Before the value becomes visible, and after it.
            self.releases
                .publish(address, self.clock.released_by(number, lane), true);
            let old = match resolve(access.space, address) {
                (Space::Shared, at) => {
                    self.atomic_shared(number, lane, at, access, b[lane], c[lane])
                }
                (Space::Global, at) => {
                    self.counters.global_atomics += 1;
                    self.atomic_global(&mut cursor, number, lane, at, access, b[lane], c[lane])
                }
                (space, _) => {
                    let message = format!("atomic operation on {space} memory");
                    Err(Fault::new(FindingKind::OutOfBounds, message))
                }
            };
            let old = old.map_err(|fault| fault.in_lane(lane as u32))?;
            self.obtain(warp, lane, address);
            if let Some(d) = access.d {
                warp.write_lane(d, lane, old);
            }
        }
        if matches!(
            access.ordering,
            Ordering::Acquire | Ordering::AcquireRelease
        ) {
            self.clock.fence(warp.number, active);
        }
        Ok(())
    }

    fn atomic_shared(
        &mut self,
        warp: usize,
        lane: usize,
        at: u64,
        access: &AtomicAccess,
        b: u64,
        c: u64,
    ) -> Checked<u64> {
        let bytes = access.ty.bytes();
        let offset = self.shared.locate(at, bytes as u64)?;
        self.shared.check_landed(offset, bytes)?;
        self.shared.check_written(offset, bytes)?;
        self.touch_shared(warp, lane, offset, bytes, Kind::Atomic)?;
        let old = self.shared.get(offset, bytes) as u64;
        self.shared.set(
            offset,
            bytes,
            update(access.op, access.ty, old, b, c).into(),
        );
        Ok(old)
    }

    #[allow(clippy::too_many_arguments, reason = "the operands of one instruction")]
    fn atomic_global(
        &mut self,
        cursor: &mut DeviceCursor<'_>,
        warp: usize,
        lane: usize,
        address: u64,
        access: &AtomicAccess,
        b: u64,
        c: u64,
    ) -> Checked<u64> {
        let bytes = access.ty.bytes();
        let now = self.access(warp, lane, Kind::Atomic);
        let judge = LaneJudge {
            clock: &self.clock,
            order: self.order,
            warp,
            lane: lane as u32,
        };
        let (page, offset) = cursor.locate(address, bytes as u64)?;
        if self.launch.config.checks.uninitialised && !page.bytes.is_written(offset, bytes) {
            return Err(unwritten(cursor, address, bytes));
        }
        if self.launch.config.checks.races
            && let Err(found) = page.shadow.touch(offset, bytes, now, &judge)
        {
            return Err(self.global_race(cursor, found, address, bytes));
        }
        let old = page.bytes.get(offset, bytes) as u64;
        page.bytes.set(
            offset,
            bytes,
            update(access.op, access.ty, old, b, c).into(),
        );
        cursor.check_writable()?;
        Ok(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AtomicOp::*;
    use ScalarType::*;

    #[test]
    fn values_of_the_specification() {
        for (op, ty, old, b, c, expected) in [
            (Add, U32, 0xffff_ffff, 2, 0, 1),
            (Add, U64, u64::MAX, 2, 0, 1),
            (Min, S32, 0xffff_ffff, 1, 0, 0xffff_ffff),
            (Min, U32, 0xffff_ffff, 1, 0, 1),
            (Max, S64, u64::MAX, 1, 0, 1),
            (Increment, U32, 4, 5, 0, 5),
            (Increment, U32, 5, 5, 0, 0),
            (Decrement, U32, 0, 5, 0, 5),
            (Decrement, U32, 6, 5, 0, 5),
            (Decrement, U32, 3, 5, 0, 2),
            (CompareAndSwap, B32, 7, 7, 9, 9),
            (CompareAndSwap, B32, 7, 8, 9, 7),
            (Exchange, B64, 1, 2, 0, 2),
            (And, B32, 6, 3, 0, 2),
            (Or, B32, 6, 3, 0, 7),
            (Xor, B32, 6, 3, 0, 5),
        ] {
            assert_eq!(
                update(op, ty, old, b, c),
                expected,
                "{op:?}{ty} {old:#x} {b:#x} {c:#x}"
            );
        }
        let one = u64::from(1f32.to_bits());
        assert_eq!(update(Add, F32, one, one, 0), u64::from(2f32.to_bits()));
        assert_eq!(
            update(Add, F64, 1f64.to_bits(), 2f64.to_bits(), 0),
            3f64.to_bits()
        );
        // 1 + 2 in the low half, -1 + 1 in the high half.
        assert_eq!(
            update(Add, BF16x2, 0xbf80_3f80, 0x3f80_4000, 0),
            0x0000_4040
        );
        assert_eq!(update(Add, F16x2, 0xbc00_3c00, 0x3c00_4000, 0), 0x0000_4200);
    }
}
