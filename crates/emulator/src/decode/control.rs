//! Decodes branches, returns and barriers.
use super::instruction::Made;
use super::kernel::Decoder;
use super::modifiers::Modifiers;
use super::scope::Entity;
use super::warp::reduce_op;
use crate::PtxError;
use crate::op::{BarrierReduce, InstructionClass, Op};
use crate::ptx::ast::Operand;

type Decoded<T> = Result<T, PtxError>;

impl Decoder<'_> {
    pub(super) fn control_operation(
        &mut self,
        opcode: &str,
        modifiers: &mut Modifiers,
        operands: &[Operand],
    ) -> Decoded<Option<Made>> {
        let op = match (opcode, operands) {
            ("bra", [Operand::Name(label)]) => {
                modifiers.take("uni");
                Op::Branch {
                    target: self.label(label, self.line)? as u32,
                }
            }
            ("brx", [index, Operand::Name(table)]) => {
                modifiers.take("idx");
                modifiers.take("uni");
                let targets = match self.find(table) {
                    Some(Entity::Targets(labels)) => labels.iter().map(|l| *l as u32).collect(),
                    _ => return self.fail(format!("`{table}` is no table of branch targets")),
                };
                Op::BranchIndexed {
                    targets,
                    index: self.source(index, 32)?,
                }
            }
            ("ret", []) => {
                modifiers.take("uni");
                match self.calls.last() {
                    Some((_, end)) => Op::Branch {
                        target: *end as u32,
                    },
                    None => Op::Exit,
                }
            }
            ("exit", []) => Op::Exit,
            ("trap", []) => Op::Trap { message: "trap" },
            ("bar" | "barrier", _) => self.barrier(modifiers, operands)?,
            ("pragma" | "nanosleep" | "griddepcontrol", _) => {
                modifiers.take_any(&["wait", "launch_dependents"]);
                Op::Nothing
            }
            _ => return Ok(None),
        };
        Ok(Some((op, InstructionClass::Control)))
    }

    fn barrier(&mut self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded<Op> {
        modifiers.take("cta");
        let is_sync = std::mem::take(&mut self.barrier_is_sync);
        let arrive = modifiers.take("arrive");
        let is_reduction = modifiers.take("red");
        modifiers.take("aligned");
        if is_reduction {
            let Some(op) = reduce_op(modifiers) else {
                return self.fail("barrier reduction without an operation");
            };
            let [d, id, middle @ .., p] = operands else {
                return self.fail("barrier reduction takes a result, a barrier and a predicate");
            };
            let counts = modifiers.ty() != Some(crate::ptx::types::ScalarType::Pred);
            let (mut count, mut truth) = (None, None);
            if counts {
                count = Some(self.target(d)?);
            } else {
                truth = Some(self.predicate_target(d)?);
            }
            let threads = self.threads(middle)?;
            let a = self.predicate(p)?;
            let reduce = Some(BarrierReduce {
                op,
                count,
                truth,
                a,
            });
            return Ok(Op::Barrier {
                id: self.source(id, 32)?,
                threads,
                arrive: false,
                reduce,
            });
        }
        if !is_sync && !arrive {
            return self.fail("barrier in this form is not modelled");
        }
        let [id, rest @ ..] = operands else {
            return self.fail("barrier without a number");
        };
        let threads = self.threads(rest)?;
        if arrive && threads.is_none() {
            return self.fail("bar.arrive needs a number of threads");
        }
        Ok(Op::Barrier {
            id: self.source(id, 32)?,
            threads,
            arrive,
            reduce: None,
        })
    }

    fn threads(&mut self, operands: &[Operand]) -> Decoded<Option<crate::op::Reg>> {
        match operands {
            [] => Ok(None),
            [threads] => Ok(Some(self.source(threads, 32)?)),
            _ => self.fail("too many operands"),
        }
    }
}
