//! Warp operations in which lanes exchange values, and the masks of participating lanes.
use super::block::Runner;
use super::warp::{Warp, of};
use crate::finding::{Checked, Fault, FindingKind};
use crate::lanes::Row;
use crate::op::{Op, ReduceOp, Reg, Shuffle, ShuffleMode, VoteMode};

/// Lanes that execute together according to their masks: (lanes, mask).
type Classes = Vec<(u32, u32)>;

impl Runner<'_> {
    /// Executes a warp operation for the lanes in `here`; returns false if their masks name lanes
    /// that have not arrived.
    pub(super) fn exchange(&mut self, warp: &mut Warp, op: &Op, here: u32) -> Checked<bool> {
        let kernel = self.kernel;
        let members = match op {
            Op::Shuffle(shuffle) => shuffle.members,
            Op::Vote { members, .. }
            | Op::Match { members, .. }
            | Op::Reduce { members, .. }
            | Op::Elect { members, .. }
            | Op::WarpSync { members } => *members,
            // Matrix operations involve the whole warp.
            _ => {
                if here != warp.live & !warp.waiting {
                    return Ok(false);
                }
                if here != !0 {
                    let message = format!("a matrix operation by lanes {here:#x} alone");
                    return Err(Fault::new(FindingKind::InvalidWarpOperation, message));
                }
                self.matrix(warp, op)?;
                return Ok(true);
            }
        };
        let masks = *warp.read(kernel, members, here)?;
        let mut classes: Classes = Vec::new();
        let mut left = here;
        while left != 0 {
            let mask = masks[left.trailing_zeros() as usize] as u32;
            let lanes = of(left)
                .filter(|lane| masks[*lane] as u32 == mask)
                .fold(0, |m, l| m | 1 << l);
            if lanes & !mask != 0 {
                let outside = (lanes & !mask).trailing_zeros();
                let message = format!("lane {outside} is not in its own mask {mask:#x}");
                let fault = Fault::new(FindingKind::InvalidWarpOperation, message);
                return Err(fault.in_lane(outside));
            }
            if lanes != mask & warp.live {
                return Ok(false);
            }
            classes.push((lanes, mask));
            left &= !lanes;
        }
        match op {
            Op::Shuffle(shuffle) => classes
                .iter()
                .try_for_each(|c| self.shuffle(warp, shuffle, c.0))?,
            Op::Vote { mode, d, dp, a, .. } => {
                for (lanes, _) in classes {
                    let ayes = warp.read_predicate(kernel, *a, lanes)? & lanes;
                    let truth = match mode {
                        VoteMode::All => ayes == lanes,
                        VoteMode::Any => ayes != 0,
                        VoteMode::Uniform => ayes == lanes || ayes == 0,
                        VoteMode::Ballot => {
                            warp.write(*d, &[u64::from(ayes); 32], lanes);
                            continue;
                        }
                    };
                    warp.write_predicate(*dp, if truth { !0 } else { 0 }, lanes);
                }
            }
            Op::Match {
                all,
                d,
                valid,
                a,
                bits,
                ..
            } => {
                for (lanes, _) in classes {
                    let values = warp
                        .read(kernel, *a, lanes)?
                        .map(|v| v & (u64::MAX >> (64 - bits)));
                    match_lanes(warp, &values, lanes, *all, *d, *valid);
                }
            }
            Op::Reduce {
                op, signed, d, a, ..
            } => {
                for (lanes, _) in classes {
                    let values = *warp.read(kernel, *a, lanes)?;
                    let result = reduce(*op, *signed, of(lanes).map(|lane| values[lane] as u32));
                    warp.write(*d, &[u64::from(result); 32], lanes);
                }
            }
            Op::Elect { d, dp, .. } => {
                for (lanes, _) in classes {
                    let leader = lanes.trailing_zeros();
                    if let Some(d) = d {
                        warp.write(*d, &[u64::from(leader); 32], lanes);
                    }
                    warp.write_predicate(*dp, 1 << leader, lanes);
                }
            }
            Op::WarpSync { .. } => self.sync_warp(warp, classes.into_iter()),
            _ => unreachable!("matched above"),
        }
        Ok(true)
    }

    fn shuffle(&self, warp: &mut Warp, shuffle: &Shuffle, lanes: u32) -> Checked<()> {
        let kernel = self.kernel;
        let a = *warp.read(kernel, shuffle.a, lanes)?;
        let b = *warp.read(kernel, shuffle.b, lanes)?;
        let c = *warp.read(kernel, shuffle.c, lanes)?;
        let (mut out, mut valid, mut unknown): (Row, u32, u32) = ([0; 32], 0, 0);
        for lane in of(lanes) {
            let (source, inside) =
                source_lane(shuffle.mode, lane as u32, b[lane] as u32, c[lane] as u32);
            valid |= u32::from(inside) << lane;
            out[lane] = a[source as usize];
            // A lane that does not participate has no value.
            unknown |= u32::from(lanes >> source & 1 == 0) << lane;
        }
        warp.write(shuffle.d, &out, lanes);
        warp.forget(shuffle.d, unknown);
        if let Some(p) = shuffle.valid {
            warp.write_predicate(p, valid, lanes);
        }
        Ok(())
    }
}

/// Lane that `lane` reads from, and whether it is inside the segment.
fn source_lane(mode: ShuffleMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let most = lane & segment | clamp & !segment;
    let least = lane & segment;
    let (source, inside) = match mode {
        ShuffleMode::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= most as i32),
        ShuffleMode::Down => (lane + b, lane + b <= most),
        ShuffleMode::Butterfly => (lane ^ b, lane ^ b <= most),
        ShuffleMode::Index => {
            let source = least | b & !segment;
            (source, source <= most)
        }
    };
    if inside {
        (source, true)
    } else {
        (lane, false)
    }
}

fn match_lanes(warp: &mut Warp, values: &Row, lanes: u32, all: bool, d: Reg, valid: Option<u32>) {
    let same = |lane: usize| {
        of(lanes)
            .filter(|l| values[*l] == values[lane])
            .fold(0, |m, l| m | 1 << l)
    };
    if all {
        let agree = same(lanes.trailing_zeros() as usize) == lanes;
        warp.write(d, &[u64::from(if agree { lanes } else { 0 }); 32], lanes);
        if let Some(p) = valid {
            warp.write_predicate(p, if agree { !0 } else { 0 }, lanes);
        }
        return;
    }
    let mut out: Row = [0; 32];
    of(lanes).for_each(|lane| out[lane] = u64::from(same(lane)));
    warp.write(d, &out, lanes);
}

fn reduce(op: ReduceOp, signed: bool, values: impl Iterator<Item = u32>) -> u32 {
    let step = |a: u32, b: u32| match (op, signed) {
        (ReduceOp::Add, _) => a.wrapping_add(b),
        (ReduceOp::Min, true) => (a as i32).min(b as i32) as u32,
        (ReduceOp::Max, true) => (a as i32).max(b as i32) as u32,
        (ReduceOp::Min, false) => a.min(b),
        (ReduceOp::Max, false) => a.max(b),
        (ReduceOp::And, _) => a & b,
        (ReduceOp::Or, _) => a | b,
        (ReduceOp::Xor, _) => a ^ b,
    };
    values.reduce(step).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs of (lane, source, inside) from the pseudocode of the specification.
    #[test]
    fn shuffle_sources() {
        use ShuffleMode::*;
        for (mode, lane, b, c, expected) in [
            (Butterfly, 5, 16, 31, (21, true)),
            (Butterfly, 21, 16, 31, (5, true)),
            (Down, 3, 1, 31, (4, true)),
            (Down, 31, 1, 31, (31, false)),
            (Up, 1, 1, 0, (0, true)),
            (Up, 0, 1, 0, (0, false)),
            (Index, 9, 3, 31, (3, true)),
            // Segments of 8: the mask keeps the upper bits of the lane.
            (Index, 9, 3, 0x181f, (11, true)),
            (Down, 14, 2, 0x181f, (14, false)),
            (Down, 13, 2, 0x181f, (15, true)),
            (Up, 9, 2, 0x1800, (9, false)),
            (Up, 10, 2, 0x1800, (8, true)),
        ] {
            assert_eq!(
                source_lane(mode, lane, b, c),
                expected,
                "{mode:?} {lane} {b} {c:#x}"
            );
        }
    }
}
