//! Decodes operations across the lanes of a warp: shuffles, votes, matches, reductions, matrices.
use super::instruction::Made;
use super::kernel::Decoder;
use super::modifiers::Modifiers;
use crate::PtxError;
use crate::op::{
    Element, InstructionClass, MatrixProduct, Op, ReduceOp, Shuffle, ShuffleMode, VoteMode,
};
use crate::ptx::ast::Operand;
use crate::ptx::types::ScalarType;

type Decoded<T> = Result<T, PtxError>;

pub(super) fn reduce_op(modifiers: &mut Modifiers) -> Option<ReduceOp> {
    Some(
        match modifiers.take_any(&["add", "min", "max", "and", "or", "xor", "popc"])? {
            "add" | "popc" => ReduceOp::Add,
            "min" => ReduceOp::Min,
            "max" => ReduceOp::Max,
            "and" => ReduceOp::And,
            "or" => ReduceOp::Or,
            _ => ReduceOp::Xor,
        },
    )
}

impl Decoder<'_> {
    pub(super) fn warp_operation(
        &mut self,
        opcode: &str,
        modifiers: &mut Modifiers,
        operands: &[Operand],
    ) -> Decoded<Option<Made>> {
        let mut class = InstructionClass::Warp;
        let is_synchronous = modifiers.take("sync");
        if is_synchronous {
            modifiers.take("aligned");
        }
        let op = match (opcode, operands) {
            ("activemask", [d]) => Op::ActiveMask { d: self.target(d)? },
            ("shfl", [d, a, b, c, members]) if is_synchronous => {
                let mode = match modifiers.take_any(&["up", "down", "bfly", "idx"]) {
                    Some("up") => ShuffleMode::Up,
                    Some("down") => ShuffleMode::Down,
                    Some("bfly") => ShuffleMode::Butterfly,
                    Some(_) => ShuffleMode::Index,
                    None => return self.fail("shfl without a mode"),
                };
                let (d, valid) = self.target_and_predicate(d)?;
                let (a, b) = (self.source(a, 32)?, self.source(b, 32)?);
                let (c, members) = (self.source(c, 32)?, self.source(members, 32)?);
                Op::Shuffle(Box::new(Shuffle {
                    mode,
                    d,
                    valid,
                    a,
                    b,
                    c,
                    members,
                }))
            }
            ("vote", [d, a, members]) if is_synchronous => {
                let mode = match modifiers.take_any(&["all", "any", "uni", "ballot"]) {
                    Some("all") => VoteMode::All,
                    Some("any") => VoteMode::Any,
                    Some("uni") => VoteMode::Uniform,
                    Some(_) => VoteMode::Ballot,
                    None => return self.fail("vote without a mode"),
                };
                let (a, members) = (self.predicate(a)?, self.source(members, 32)?);
                if mode == VoteMode::Ballot {
                    Op::Vote {
                        mode,
                        d: self.target(d)?,
                        dp: 0,
                        a,
                        members,
                    }
                } else {
                    let dp = self.predicate_target(d)?;
                    Op::Vote {
                        mode,
                        d: crate::op::Reg::ZERO,
                        dp,
                        a,
                        members,
                    }
                }
            }
            ("match", [d, a, members]) if is_synchronous => {
                let all = modifiers.take("all");
                if !all && !modifiers.take("any") {
                    return self.fail("match without a mode");
                }
                let bits = modifiers.ty().map_or(32, ScalarType::bits);
                let (d, valid) = self.target_and_predicate(d)?;
                let (a, members) = (self.source(a, bits)?, self.source(members, 32)?);
                Op::Match {
                    all,
                    d,
                    valid,
                    a,
                    members,
                    bits,
                }
            }
            ("redux", [d, a, members]) if is_synchronous => {
                let Some(op) = reduce_op(modifiers) else {
                    return self.fail("redux without an operation");
                };
                let ty = modifiers.ty();
                if !ty.is_some_and(|ty| ty.is_integer() && ty.bits() == 32) {
                    return self.fail("redux of other types than 32-bit integers is not modelled");
                }
                let signed = ty.is_some_and(ScalarType::is_signed);
                let (a, members) = (self.source(a, 32)?, self.source(members, 32)?);
                Op::Reduce {
                    op,
                    signed,
                    d: self.target(d)?,
                    a,
                    members,
                }
            }
            ("elect", [d, members]) if is_synchronous => {
                let Operand::Pair(value, predicate) = d else {
                    return self.fail("elect needs `d|p`");
                };
                let d = match value.as_str() {
                    "_" => None,
                    _ => Some(self.target(&Operand::Name(value.clone()))?),
                };
                let dp = self.predicate_target(&Operand::Name(predicate.clone()))?;
                Op::Elect {
                    d,
                    dp,
                    members: self.source(members, 32)?,
                }
            }
            ("ldmatrix", [d, address]) if is_synchronous => {
                let d = self.targets(d)?;
                let (transposed, address) = self.matrices(modifiers, d.len(), address)?;
                class = InstructionClass::Memory;
                Op::LoadMatrix {
                    transposed,
                    d,
                    address,
                }
            }
            ("stmatrix", [address, values]) if is_synchronous => {
                let values = self.sources(values, 32)?;
                let (transposed, address) = self.matrices(modifiers, values.len(), address)?;
                class = InstructionClass::Memory;
                Op::StoreMatrix {
                    transposed,
                    values,
                    address,
                }
            }
            ("movmatrix", [d, a]) if is_synchronous => {
                if !modifiers.take("m8n8") || !modifiers.take("trans") {
                    return self.fail("movmatrix is m8n8.trans.b16");
                }
                Op::MoveMatrix {
                    d: self.target(d)?,
                    a: self.source(a, 32)?,
                }
            }
            ("mma", [d, a, b, c]) if is_synchronous => {
                class = InstructionClass::Matrix;
                self.matrix_product(modifiers, d, a, b, c)?
            }
            ("bar", [members]) if modifiers.take("warp") => {
                class = InstructionClass::Control;
                Op::WarpSync {
                    members: self.source(members, 32)?,
                }
            }
            // `.sync` of barriers belongs to the control family.
            ("bar" | "barrier", _) => {
                self.barrier_is_sync = is_synchronous;
                return Ok(None);
            }
            _ if is_synchronous => {
                return self.fail(format!("`{opcode}.sync` in this form is not modelled"));
            }
            _ => return Ok(None),
        };
        Ok(Some((op, class)))
    }

    fn matrices(
        &mut self,
        modifiers: &mut Modifiers,
        count: usize,
        address: &Operand,
    ) -> Decoded<(bool, crate::op::Address)> {
        let named = match modifiers.take_any(&["x1", "x2", "x4"]) {
            Some("x1") => 1,
            Some("x2") => 2,
            Some(_) => 4,
            None => return self.fail("matrix access without a count"),
        };
        let is_plain = modifiers.take("m8n8") && modifiers.ty() == Some(ScalarType::B16);
        let is_shared = modifiers.take_any(&["shared", "shared::cta"]).is_some();
        if named != count || !is_plain || !is_shared {
            return self.fail("matrix access in this form is not modelled");
        }
        Ok((modifiers.take("trans"), self.address(address)?.0))
    }

    fn matrix_product(
        &mut self,
        modifiers: &mut Modifiers,
        d: &Operand,
        a: &Operand,
        b: &Operand,
        c: &Operand,
    ) -> Decoded<Op> {
        use ScalarType::{BF16, F16, F32, TF32};
        let shape = modifiers.take_any(&["m16n8k16", "m16n8k8", "m16n8k4"]);
        let layout = modifiers.take("row") && modifiers.take("col");
        let (element, half_accumulator) = match modifiers.types() {
            [F32, BF16, BF16, F32] => (Element::Bf16, false),
            [F32, F16, F16, F32] => (Element::F16, false),
            [F16, F16, F16, F16] => (Element::F16, true),
            [F32, TF32, TF32, F32] => (Element::Tf32, false),
            types => return self.fail(format!("mma of {types:?} is not modelled")),
        };
        let k = match (shape, element) {
            (Some("m16n8k16"), Element::F16 | Element::Bf16) => 16,
            (Some("m16n8k8"), _) => 8,
            (Some("m16n8k4"), Element::Tf32) => 4,
            _ => return self.fail("mma of this shape is not modelled"),
        };
        let per_register = if element == Element::Tf32 { 1 } else { 2 };
        let accumulators = if half_accumulator { 2 } else { 4 };
        let product = MatrixProduct {
            element,
            k,
            half_accumulator,
            d: self.targets(d)?,
            a: self.sources(a, 32)?,
            b: self.sources(b, 32)?,
            c: self.sources(c, 32)?,
        };
        let lengths = [
            product.d.len(),
            product.a.len(),
            product.b.len(),
            product.c.len(),
        ];
        let expected = [
            accumulators,
            16 * k / 32 / per_register,
            8 * k / 32 / per_register,
            accumulators,
        ];
        if !layout || lengths != expected {
            return self.fail(format!(
                "mma with {lengths:?} registers, {expected:?} expected"
            ));
        }
        Ok(Op::Mma(Box::new(product)))
    }
}
