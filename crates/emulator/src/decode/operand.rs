//! Decodes operands: registers, constants, special registers, addresses, predicates.
use super::kernel::{Decoder, Special};
use super::scope::Entity;
use crate::PtxError;
use crate::op::{Address, Predicate, Reg};
use crate::ptx::ast::Operand;
use crate::ptx::types::Space;

type Decoded<T> = Result<T, PtxError>;

fn special(name: &str) -> Option<Special> {
    let axis = |axis: &str| ["x", "y", "z"].iter().position(|a| *a == axis);
    let (stem, rest) = name
        .strip_prefix('%')?
        .split_once('.')
        .unwrap_or((&name[1..], ""));
    Some(match stem {
        "tid" => Special::Thread(axis(rest)?),
        "ntid" => Special::BlockShape(axis(rest)?),
        "ctaid" => Special::Block(axis(rest)?),
        "nctaid" => Special::GridShape(axis(rest)?),
        "laneid" => Special::Lane,
        "warpid" => Special::Warp,
        "nwarpid" => Special::Warps,
        "lanemask_eq" => Special::MaskEqual,
        "lanemask_lt" => Special::MaskLess,
        "lanemask_le" => Special::MaskLessEqual,
        "lanemask_gt" => Special::MaskGreater,
        "lanemask_ge" => Special::MaskGreaterEqual,
        "dynamic_smem_size" => Special::DynamicShared,
        "total_smem_size" => Special::TotalShared,
        "smid" | "gridid" => Special::Zero,
        _ => return None,
    })
}

impl Decoder<'_> {
    pub(super) fn constant(&mut self, value: u64) -> Reg {
        if let Some(reg) = self.constant_index.get(&value) {
            return *reg;
        }
        let reg = Reg(Reg::CONSTANT | self.constants.len() as u32);
        self.constants.push([value; 32]);
        self.constant_index.insert(value, reg);
        reg
    }

    fn special(&mut self, special: Special, name: &str) -> Reg {
        if let Some((_, reg)) = self.specials.iter().find(|(known, _)| *known == special) {
            return *reg;
        }
        let reg = self.new_register(name);
        self.specials.push((special, reg));
        reg
    }

    /// A source operand of `bits` bits.
    pub(super) fn source(&mut self, operand: &Operand, bits: u32) -> Decoded<Reg> {
        let mask = if bits >= 64 { !0 } else { (1u64 << bits) - 1 };
        match operand {
            Operand::Integer(value) => Ok(self.constant(value & mask)),
            Operand::Float32(bits) => Ok(self.constant(u64::from(*bits))),
            Operand::Float64(bits) => Ok(self.constant(*bits)),
            Operand::Name(name) => match self.find(name) {
                Some(Entity::Register { reg, .. }) => Ok(reg),
                Some(Entity::Variable { address, .. }) => Ok(self.constant(address & mask)),
                Some(_) => self.fail(format!("`{name}` is no register or variable")),
                None if name == "WARP_SZ" => Ok(self.constant(32)),
                None => match special(name) {
                    Some(special) => Ok(self.special(special, name)),
                    None => self.fail(format!("unknown name `{name}`")),
                },
            },
            Operand::Offset(name, offset) => match self.find(name) {
                Some(Entity::Variable { address, .. }) => {
                    Ok(self.constant(address.wrapping_add(*offset as u64) & mask))
                }
                _ => self.fail(format!("`{name}` is no variable")),
            },
            other => self.fail(format!("value expected, got {other:?}")),
        }
    }

    /// A destination register; `_` becomes a register that is never read.
    pub(super) fn target(&mut self, operand: &Operand) -> Decoded<Reg> {
        Ok(self.target_with_bits(operand)?.0)
    }

    pub(super) fn target_with_bits(&mut self, operand: &Operand) -> Decoded<(Reg, u32)> {
        match operand {
            Operand::Name(name) if name == "_" => Ok((self.new_register("_"), 64)),
            Operand::Name(name) => match self.find(name) {
                Some(Entity::Register { reg, bits }) => Ok((reg, bits)),
                _ => self.fail(format!("`{name}` is no register")),
            },
            other => self.fail(format!("register expected, got {other:?}")),
        }
    }

    /// A destination register, with a predicate if the operand is `a|p`.
    pub(super) fn target_and_predicate(
        &mut self,
        operand: &Operand,
    ) -> Decoded<(Reg, Option<u32>)> {
        match operand {
            Operand::Pair(value, predicate) => {
                let value = self.target(&Operand::Name(value.clone()))?;
                Ok((value, self.predicate_target_name(predicate)?))
            }
            other => Ok((self.target(other)?, None)),
        }
    }

    fn predicate_target_name(&mut self, name: &str) -> Decoded<Option<u32>> {
        match self.find(name) {
            _ if name == "_" => Ok(None),
            Some(Entity::Predicate(p)) => Ok(Some(p)),
            _ => self.fail(format!("`{name}` is no predicate")),
        }
    }

    /// One or two destination predicates: `p` or `p|q`.
    pub(super) fn predicate_targets(
        &mut self,
        operand: &Operand,
    ) -> Decoded<(Option<u32>, Option<u32>)> {
        match operand {
            Operand::Pair(p, q) => Ok((
                self.predicate_target_name(p)?,
                self.predicate_target_name(q)?,
            )),
            Operand::Name(p) => Ok((self.predicate_target_name(p)?, None)),
            other => self.fail(format!("predicate expected, got {other:?}")),
        }
    }

    pub(super) fn predicate_target(&mut self, operand: &Operand) -> Decoded<u32> {
        match self.predicate_targets(operand)? {
            (Some(p), None) => Ok(p),
            _ => self.fail("one predicate expected"),
        }
    }

    /// A source predicate.
    pub(super) fn predicate(&mut self, operand: &Operand) -> Decoded<Predicate> {
        let (name, negated) = match operand {
            Operand::Integer(value) => return Ok(Predicate::Constant(*value != 0)),
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            other => return self.fail(format!("predicate expected, got {other:?}")),
        };
        match self.find(name) {
            Some(Entity::Predicate(p)) if negated => Ok(Predicate::Not(p)),
            Some(Entity::Predicate(p)) => Ok(Predicate::Register(p)),
            _ => self.fail(format!("`{name}` is no predicate")),
        }
    }

    /// `[base + offset]`, with the space of the variable if the base is one.
    pub(super) fn address(&mut self, operand: &Operand) -> Decoded<(Address, Option<Space>)> {
        let Operand::Address(base, offset) = operand else {
            return self.fail(format!("address expected, got {operand:?}"));
        };
        let Some(name) = base else {
            return Ok((
                Address {
                    base: Reg::ZERO,
                    offset: *offset,
                },
                None,
            ));
        };
        match self.find(name) {
            Some(Entity::Register { reg, .. }) => Ok((
                Address {
                    base: reg,
                    offset: *offset,
                },
                None,
            )),
            Some(Entity::Variable { space, address }) => {
                let offset = offset.wrapping_add(address as i64);
                Ok((
                    Address {
                        base: Reg::ZERO,
                        offset,
                    },
                    Some(space),
                ))
            }
            _ => self.fail(format!("`{name}` is no address")),
        }
    }

    /// The elements of `{…}`, or the operand alone.
    pub(super) fn elements(operand: &Operand) -> &[Operand] {
        match operand {
            Operand::Vector(elements) => elements,
            other => std::slice::from_ref(other),
        }
    }

    pub(super) fn sources(&mut self, operand: &Operand, bits: u32) -> Decoded<Vec<Reg>> {
        Self::elements(operand)
            .iter()
            .map(|element| self.source(element, bits))
            .collect()
    }

    pub(super) fn targets(&mut self, operand: &Operand) -> Decoded<Vec<Reg>> {
        Self::elements(operand)
            .iter()
            .map(|element| self.target(element))
            .collect()
    }

    /// A literal integer.
    pub(super) fn literal(&self, operand: &Operand) -> Decoded<u64> {
        match operand {
            Operand::Integer(value) => Ok(*value),
            other => self.fail(format!("literal expected, got {other:?}")),
        }
    }
}
