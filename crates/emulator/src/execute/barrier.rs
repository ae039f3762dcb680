//! Barriers of a block: arrival, completion, and missing threads.
use super::block::Runner;
use super::warp::{Waiting, Warp};
use crate::finding::{Checked, Fault, FindingKind};
use crate::lanes::Row;
use crate::op::{BarrierReduce, Op, ReduceOp, Reg};

/// One of the 16 barriers of a block.
#[derive(Clone, Debug, Default)]
pub(super) struct BarrierState {
    arrived: u32,
    expected: u32,
    /// Place of the first arrival, for barriers of the whole block.
    pc: u32,
    /// Warps, with the stamps of their arrivals.
    arrivals: Vec<(usize, u32)>,
    waiting: u32,
    /// For `bar.red`, the lanes with a true predicate, per warp.
    votes: Vec<(usize, u32)>,
}

impl Runner<'_> {
    /// Executes a barrier instruction at `pc` for the lanes `active` of the warp.
    pub(super) fn barrier(
        &mut self,
        warp: &mut Warp,
        active: u32,
        pc: u32,
        (id, threads, arrive, reduce): (Reg, Option<Reg>, bool, Option<BarrierReduce>),
    ) -> Checked<()> {
        let kernel = self.kernel;
        let lane = active.trailing_zeros() as usize;
        let barrier = warp.read(kernel, id, active)?[lane] as usize;
        let whole: u32 = self.place.block_shape.iter().product();
        let expected = match threads {
            Some(threads) => warp.read(kernel, threads, active)?[lane] as u32,
            None => whole,
        };
        let divergent = |message: String| Err(Fault::new(FindingKind::DivergentBarrier, message));
        if barrier >= 16 {
            return divergent(format!("barrier {barrier} of 16"));
        }
        if threads.is_some() && (expected == 0 || expected % 32 != 0) {
            return divergent(format!(
                "barrier of {expected} threads, which is no multiple of 32"
            ));
        }
        if let Some(waiting) = warp.waits_at
            && waiting.pc != pc
        {
            let line = kernel.code[waiting.pc as usize].line;
            return divergent(format!(
                "other lanes of the warp wait at the barrier of line {line}"
            ));
        }
        let everyone = warp.live & !warp.waiting == active;
        if arrive && !everyone {
            return divergent("bar.arrive by a part of a warp".into());
        }
        if let Some(reduce) = reduce {
            let votes = warp.read_predicate(kernel, reduce.a, active)? & active;
            self.barriers[barrier].votes.push((warp.number, votes));
        }
        warp.jump(active, pc + 1);
        if !arrive {
            warp.waiting |= active;
            warp.waits_at = Some(Waiting { barrier, pc });
            if !everyone {
                // The rest of the warp may still come; otherwise the barrier never completes.
                return Ok(());
            }
        }
        let present = warp.live.count_ones();
        let stamp = self.clock.advance();
        let state = &mut self.barriers[barrier];
        if state.arrivals.is_empty() {
            (state.expected, state.pc) = (expected, pc);
        }
        if state.expected != expected {
            return divergent(format!(
                "{expected} threads expected, elsewhere {}",
                state.expected
            ));
        }
        if threads.is_none() && state.pc != pc {
            let line = kernel.code[state.pc as usize].line;
            return divergent(format!("other warps wait at the barrier of line {line}"));
        }
        // If a number of threads is given, a partial last warp counts as a whole one.
        let is_last_warp = warp.everyone != !0 && warp.live == warp.everyone;
        state.arrived += if threads.is_some() && is_last_warp {
            32
        } else {
            present
        };
        state.arrivals.push((warp.number, stamp));
        state.waiting |= if arrive { 0 } else { 1 << warp.number };
        if state.arrived > state.expected {
            return divergent(format!(
                "{} threads at a barrier of {expected}",
                state.arrived
            ));
        }
        Ok(())
    }

    /// Opens the barriers that everybody has reached; returns whether there was one.
    pub(super) fn settle_barriers(&mut self, warps: &mut [Warp]) -> Checked<bool> {
        let mut opened = false;
        for number in 0..self.barriers.len() {
            let state = &self.barriers[number];
            if state.arrivals.is_empty() || state.arrived < state.expected {
                continue;
            }
            let state = std::mem::take(&mut self.barriers[number]);
            let is_whole_block = state.waiting.count_ones() as usize == warps.len();
            if is_whole_block {
                self.clock.join_block();
            } else {
                self.clock.join_warps(state.waiting, &state.arrivals);
            }
            let ayes: u32 = state
                .votes
                .iter()
                .map(|(_, votes)| votes.count_ones())
                .sum();
            for warp in warps
                .iter_mut()
                .filter(|warp| state.waiting >> warp.number & 1 == 1)
            {
                if let Some(Waiting { pc, .. }) = warp.waits_at.take() {
                    self.vote_result(warp, pc, ayes, state.arrived);
                }
                warp.waiting = 0;
            }
            opened = true;
        }
        Ok(opened)
    }

    fn vote_result(&self, warp: &mut Warp, pc: u32, ayes: u32, voters: u32) {
        let Op::Barrier {
            reduce: Some(reduce),
            ..
        } = &self.kernel.code[pc as usize].op
        else {
            return;
        };
        let truth = match reduce.op {
            ReduceOp::And => ayes == voters,
            _ => ayes > 0,
        };
        let lanes = warp.waiting;
        if let Some(p) = reduce.truth {
            warp.write_predicate(p, if truth { !0 } else { 0 }, lanes);
        }
        if let Some(d) = reduce.count {
            let row: Row = [u64::from(ayes); 32];
            warp.write(d, &row, lanes);
        }
    }

    /// Reports a block in which no warp can continue, with the barrier of each.
    pub(super) fn stuck(&mut self, warps: &[Warp]) -> Box<Fault> {
        let waiting = warps
            .iter()
            .find_map(|warp| warp.waits_at.map(|at| (warp, at)));
        let Some((warp, at)) = waiting else {
            return Fault::new(FindingKind::NoProgress, "no warp can go on");
        };
        self.warp = warp.number;
        self.active = warp.waiting;
        self.line = self.kernel.code[at.pc as usize].line;
        let count = |f: &dyn Fn(&Warp) -> u32| warps.iter().map(|w| f(w).count_ones()).sum::<u32>();
        let exited = count(&|w| w.everyone & !w.live);
        let elsewhere = count(&|w| match w.waits_at {
            Some(other) if other.barrier == at.barrier => 0,
            _ => w.live,
        });
        let state = &self.barriers[at.barrier];
        let message = format!(
            "barrier {} is reached by {} threads of {}: {exited} have exited, {elsewhere} are elsewhere",
            at.barrier,
            count(&|w| w.waiting),
            if state.expected == 0 {
                self.place.block_shape.iter().product()
            } else {
                state.expected
            },
        );
        Fault::new(FindingKind::DivergentBarrier, message)
    }

    /// `__syncwarp`: the lanes in `members` have met.
    pub(super) fn sync_warp(&mut self, warp: &Warp, classes: impl Iterator<Item = (u32, u32)>) {
        for (lanes, _) in classes {
            self.clock.join_lanes(warp.number, lanes, warp.everyone);
        }
    }
}
