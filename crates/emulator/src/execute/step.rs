//! The interpreter loop of a warp.
//!
//! Lanes at the same instruction execute it together. Among the groups into which a warp has split,
//! the one at the lowest place runs until it reaches another group, which is the point where code
//! from a structured compiler reconverges.
use super::block::Runner;
use super::warp::{Warp, of};
use crate::finding::{Checked, Fault, FindingKind};
use crate::lanes::Row;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOWS_END};
use crate::op::{Instruction, InstructionClass, Logic, Op};
use crate::ptx::types::Space;

/// State of the lanes after an instruction.
enum Next {
    Continue,
    /// The whole group goes to another place.
    Jump(u32),
    /// The group is no longer together: a new group must be chosen.
    Regroup,
    /// As `Regroup`, and the turn ends: a barrier may open before the warp continues.
    Yield,
}

impl Runner<'_> {
    /// Runs the warp until it waits, exits, or has executed about `turn` instructions.
    pub(super) fn run(&mut self, warp: &mut Warp, turn: u64) -> Checked<()> {
        let end = warp.instructions.saturating_add(turn);
        while warp.instructions < end {
            let runnable = warp.live & !warp.waiting & !warp.parked;
            if runnable == 0 {
                return self.check_parked(warp);
            }
            let mut pc = u32::MAX;
            for lane in of(runnable) {
                pc = pc.min(warp.pc[lane]);
            }
            let (mut group, mut others) = (0, u32::MAX);
            for lane in of(runnable) {
                match warp.pc[lane] {
                    at if at == pc => group |= 1 << lane,
                    at => others = others.min(at),
                }
            }
            if self.run_group(warp, group, pc, others, end)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reports lanes that wait for lanes that cannot come.
    fn check_parked(&mut self, warp: &Warp) -> Checked<()> {
        if warp.parked == 0 {
            return Ok(());
        }
        let lane = warp.parked.trailing_zeros();
        self.line = self.kernel.code[warp.pc[lane as usize] as usize].line;
        let message = format!(
            "lanes {:#x} wait for others that their mask names and that do not come",
            warp.parked
        );
        Err(Fault::new(FindingKind::InvalidWarpOperation, message).in_lane(lane))
    }

    /// Runs a group of lanes until they split, meet others or the turn is over; returns whether the
    /// turn must end.
    fn run_group(
        &mut self,
        warp: &mut Warp,
        group: u32,
        mut pc: u32,
        others: u32,
        end: u64,
    ) -> Checked<bool> {
        let kernel = self.kernel;
        loop {
            if pc >= others || warp.instructions >= end {
                warp.jump(group, pc);
                return Ok(false);
            }
            let instruction = &kernel.code[pc as usize];
            self.line = instruction.line;
            self.active = group;
            let active = match instruction.guard {
                None => group,
                Some(guard) => {
                    let number = guard.predicate as usize;
                    let missing = group & !warp.predicates_defined[number];
                    if missing != 0 {
                        let name = &kernel.predicate_names[number];
                        let message = format!("{name} guards before it is set");
                        let fault = Fault::new(FindingKind::UnsetRegister, message);
                        return Err(fault.in_lane(missing.trailing_zeros()));
                    }
                    let value = warp.predicates[number];
                    group & if guard.negated { !value } else { value }
                }
            };
            warp.instructions += 1;
            self.count(instruction, active);
            if active == 0 {
                pc += 1;
                continue;
            }
            self.active = active;
            match self.execute(warp, instruction, group, active, pc)? {
                Next::Continue => pc += 1,
                Next::Jump(target) => pc = target,
                Next::Regroup => return Ok(false),
                Next::Yield => return Ok(true),
            }
        }
    }

    #[inline(always)]
    fn count(&mut self, instruction: &Instruction, active: u32) {
        let lanes = u64::from(active.count_ones());
        self.counters.warp_instructions += 1;
        self.counters.thread_instructions_by_class[instruction.class as usize] += lanes;
        if instruction.class == InstructionClass::Float {
            let is_fused = matches!(&instruction.op, Op::Lanes { inputs, .. } if inputs[2] != crate::op::Reg::ZERO);
            self.counters.float_operations += lanes * if is_fused { 2 } else { 1 };
        }
    }

    #[inline(always)]
    fn execute(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        group: u32,
        active: u32,
        pc: u32,
    ) -> Checked<Next> {
        let kernel = self.kernel;
        match &instruction.op {
            Op::Lanes {
                function,
                d,
                inputs,
            } => {
                let result = {
                    let row = |i: usize| warp.read(kernel, inputs[i], active);
                    function(&[row(0)?, row(1)?, row(2)?, row(3)?])
                };
                warp.write(*d, &result, active);
            }
            Op::Compare {
                function,
                d,
                other,
                a,
                b,
                with,
            } => {
                let truth = function(
                    warp.read(kernel, *a, active)?,
                    warp.read(kernel, *b, active)?,
                );
                let with = match with {
                    None => None,
                    Some((logic, p)) => Some((*logic, warp.read_predicate(kernel, *p, active)?)),
                };
                for (target, truth) in [(d, truth), (other, !truth)] {
                    let value = with.map_or(truth, |(logic, p)| combine(logic, truth, p));
                    if let Some(target) = target {
                        warp.write_predicate(*target, value, active);
                    }
                }
            }
            Op::Select { d, a, b, predicate } => {
                let choose = warp.read_predicate(kernel, *predicate, active)?;
                // Only the chosen operand must be set.
                let a = *warp.read(kernel, *a, active & choose)?;
                let b = *warp.read(kernel, *b, active & !choose)?;
                let mut row: Row = [0; 32];
                for i in 0..32 {
                    row[i] = if choose >> i & 1 == 1 { a[i] } else { b[i] };
                }
                warp.write(*d, &row, active);
            }
            Op::Logic { op, d, a, b } => {
                let a = warp.read_predicate(kernel, *a, active)?;
                let b = warp.read_predicate(kernel, *b, active)?;
                warp.write_predicate(*d, combine(*op, a, b), active);
            }
            Op::Pack { d, parts, bits } => {
                let mut row: Row = [0; 32];
                for (i, part) in parts.iter().enumerate() {
                    let part = warp.read(kernel, *part, active)?;
                    let mask = u64::MAX >> (64 - bits);
                    for lane in 0..32 {
                        row[lane] |= (part[lane] & mask) << (i as u32 * bits);
                    }
                }
                warp.write(*d, &row, active);
            }
            Op::Unpack { parts, a, bits } => {
                let a = *warp.read(kernel, *a, active)?;
                for (i, part) in parts.iter().enumerate() {
                    let Some(part) = part else { continue };
                    let mask = u64::MAX >> (64 - bits);
                    let row = std::array::from_fn(|lane| a[lane] >> (i as u32 * bits) & mask);
                    warp.write(*part, &row, active);
                }
            }
            Op::Carry {
                bits,
                d,
                a,
                b,
                carry_in,
                carry_out,
                subtract,
            } => {
                let (a, b) = (
                    *warp.read(kernel, *a, active)?,
                    *warp.read(kernel, *b, active)?,
                );
                let mask = u64::MAX >> (64 - bits);
                let mut row: Row = [0; 32];
                for lane in of(active) {
                    let carry = u128::from(*carry_in && warp.carry >> lane & 1 == 1);
                    let (a, b) = (u128::from(a[lane]), u128::from(b[lane]));
                    let sum = if *subtract {
                        a.wrapping_sub(b).wrapping_sub(carry)
                    } else {
                        a + b + carry
                    };
                    row[lane] = sum as u64 & mask;
                    if *carry_out {
                        let bit = (sum >> bits & 1) as u32;
                        warp.carry = warp.carry & !(1 << lane) | bit << lane;
                    }
                }
                warp.write(*d, &row, active);
            }
            Op::Clock { d } => {
                let row = [warp.instructions; 32];
                warp.write(*d, &row, active);
            }
            Op::ActiveMask { d } => warp.write(*d, &[u64::from(active); 32], active),
            Op::IsSpace { space, d, a } => {
                let a = warp.read(kernel, *a, active)?;
                let inside = |x: u64| match space {
                    Space::Shared => (SHARED_WINDOW..LOCAL_WINDOW).contains(&x),
                    Space::Local => (LOCAL_WINDOW..PARAM_WINDOW).contains(&x),
                    Space::Param => (PARAM_WINDOW..WINDOWS_END).contains(&x),
                    _ => x < SHARED_WINDOW,
                };
                let truth = (0..32).fold(0, |all, i| all | u32::from(inside(a[i])) << i);
                warp.write_predicate(*d, truth, active);
            }
            Op::Load {
                space,
                ty,
                ordering,
                d,
                widths,
                address,
            } => {
                self.load(warp, active, (*space, *ty, *ordering), d, *widths, *address)?;
            }
            Op::Store {
                space,
                ty,
                ordering,
                values,
                address,
            } => {
                self.store(warp, active, (*space, *ty, *ordering), values, *address)?;
            }
            Op::Atomic(access) => self.atomic(warp, active, access)?,
            Op::CopyAsync {
                target,
                source,
                bytes,
                available,
            } => {
                self.copy_async(warp, active, *target, *source, *bytes, *available)?;
            }
            Op::CopyCommit => Self::commit(warp, active),
            Op::CopyWait { pending } => self.wait_for_copies(warp, active, *pending)?,
            Op::Shuffle(_)
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Reduce { .. }
            | Op::Elect { .. }
            | Op::WarpSync { .. }
            | Op::LoadMatrix { .. }
            | Op::StoreMatrix { .. }
            | Op::MoveMatrix { .. }
            | Op::Mma(_) => return self.together(warp, instruction, group, active, pc),
            Op::Branch { target } => {
                if active == group {
                    return Ok(Next::Jump(*target));
                }
                warp.jump(group & !active, pc + 1);
                warp.jump(active, *target);
                return Ok(Next::Regroup);
            }
            Op::BranchIndexed { targets, index } => {
                let index = *warp.read(kernel, *index, active)?;
                warp.jump(group & !active, pc + 1);
                for lane in of(active) {
                    match targets.get(index[lane] as usize) {
                        Some(target) => warp.pc[lane] = *target,
                        None => {
                            let message = format!("branch {} of {}", index[lane], targets.len());
                            let fault = Fault::new(FindingKind::OutOfBounds, message);
                            return Err(fault.in_lane(lane as u32));
                        }
                    }
                }
                return Ok(Next::Regroup);
            }
            Op::Exit => {
                warp.live &= !active;
                warp.jump(group & !active, pc + 1);
                return Ok(Next::Regroup);
            }
            Op::Barrier {
                id,
                threads,
                arrive,
                reduce,
            } => {
                warp.jump(group & !active, pc + 1);
                self.barrier(warp, active, pc, (*id, *threads, *arrive, *reduce))?;
                return Ok(if *arrive { Next::Yield } else { Next::Regroup });
            }
            Op::Fence => self.clock.fence(warp.number, active),
            Op::Trap { message } => return Err(Fault::new(FindingKind::Trap, *message)),
            Op::Nothing => {}
        }
        Ok(Next::Continue)
    }

    /// Warp operations are executed when all lanes in the mask have arrived.
    fn together(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        group: u32,
        active: u32,
        pc: u32,
    ) -> Checked<Next> {
        let waiting_here = of(warp.parked).filter(|lane| warp.pc[*lane] == pc);
        let here = waiting_here.fold(active, |all, lane| all | 1 << lane);
        match self.exchange(warp, &instruction.op, here)? {
            true if here == active => Ok(Next::Continue),
            true => {
                warp.parked &= !here;
                warp.jump(here | group, pc + 1);
                Ok(Next::Regroup)
            }
            false => {
                warp.parked |= active;
                warp.jump(active, pc);
                warp.jump(group & !active, pc + 1);
                Ok(Next::Regroup)
            }
        }
    }
}

fn combine(logic: Logic, a: u32, b: u32) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
        Logic::Not => !a,
        Logic::Move => a,
    }
}
