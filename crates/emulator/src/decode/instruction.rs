//! Decodes one instruction: its family and its operands.
use super::kernel::Decoder;
use super::modifiers::Modifiers;
use super::scope::Entity;
use crate::PtxError;
use crate::lanes;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::op::{Guard, InstructionClass, Logic, Op, Reg};
use crate::ptx::ast::{Instruction, Operand};
use crate::ptx::types::{ScalarType, Space};

type Decoded<T> = Result<T, PtxError>;

/// An operation and its class, ready to be pushed.
pub(super) type Made = (Op, InstructionClass);

impl Decoder<'_> {
    pub(super) fn instruction(&mut self, instruction: &Instruction) -> Decoded<()> {
        self.line = instruction.line;
        let guard = match &instruction.guard {
            None => None,
            Some(guard) => match self.find(&guard.register) {
                Some(Entity::Predicate(predicate)) => Some(Guard {
                    predicate,
                    negated: guard.negated,
                }),
                _ => return self.fail(format!("guard `{}` is no predicate", guard.register)),
            },
        };
        if instruction.opcode == "call" {
            if let Some(guard) = guard {
                return self.guarded_call(instruction, guard);
            }
            return self.call(instruction);
        }
        let mut modifiers = Modifiers::new(&instruction.modifiers);
        let (op, class) = self.operation(instruction, &mut modifiers)?;
        if let Some(word) = modifiers.left_over() {
            let opcode = &instruction.opcode;
            return self.fail(format!("`{opcode}` with `.{word}` is not modelled"));
        }
        self.push(op, class);
        if let Some(last) = self.code.last_mut() {
            last.guard = guard;
        }
        Ok(())
    }

    /// `@p call`: the inlined body is skipped where the guard is false.
    fn guarded_call(&mut self, instruction: &Instruction, guard: Guard) -> Decoded<()> {
        let after = self.new_label();
        self.push(
            Op::Branch {
                target: after as u32,
            },
            InstructionClass::Control,
        );
        if let Some(branch) = self.code.last_mut() {
            branch.guard = Some(Guard {
                negated: !guard.negated,
                ..guard
            });
        }
        self.call(instruction)?;
        self.place_label(after);
        Ok(())
    }

    fn operation(&mut self, instruction: &Instruction, modifiers: &mut Modifiers) -> Decoded<Made> {
        let opcode = instruction.opcode.as_str();
        let operands = instruction.operands.as_slice();
        if let Some(made) = self.memory_operation(opcode, modifiers, operands)? {
            return Ok(made);
        }
        if let Some(made) = self.warp_operation(opcode, modifiers, operands)? {
            return Ok(made);
        }
        if let Some(made) = self.control_operation(opcode, modifiers, operands)? {
            return Ok(made);
        }
        match (opcode, operands) {
            ("setp", [d, a, b, rest @ ..]) => self.compare(modifiers, d, a, b, rest),
            ("selp", [d, a, b, p]) => {
                let bits = modifiers.ty().map_or(64, ScalarType::bits);
                let (a, b) = (self.source(a, bits)?, self.source(b, bits)?);
                let op = Op::Select {
                    d: self.target(d)?,
                    a,
                    b,
                    predicate: self.predicate(p)?,
                };
                Ok((op, InstructionClass::Move))
            }
            ("mov", [d @ Operand::Vector(_), a]) => self.unpack(modifiers, d, a),
            ("mov", [d, Operand::Vector(parts)]) => self.pack(modifiers, d, parts),
            ("mov", [d, Operand::Name(name)])
                if name.starts_with("%clock") || name == "%globaltimer" =>
            {
                Ok((Op::Clock { d: self.target(d)? }, InstructionClass::Move))
            }
            ("cvta", [d, a]) => self.generic_address(modifiers, d, a),
            ("isspacep", [d, a]) => {
                let space = match modifiers.take_any(&[
                    "global",
                    "const",
                    "shared",
                    "shared::cta",
                    "local",
                    "param",
                ]) {
                    Some("global" | "const") => Space::Global,
                    Some("local") => Space::Local,
                    Some("param") => Space::Param,
                    Some(_) => Space::Shared,
                    None => return self.fail("isspacep of an unknown space"),
                };
                let op = Op::IsSpace {
                    space,
                    d: self.predicate_target(d)?,
                    a: self.source(a, 64)?,
                };
                Ok((op, InstructionClass::Predicate))
            }
            ("and" | "or" | "xor" | "not" | "mov", [d, rest @ ..])
                if modifiers.ty() == Some(ScalarType::Pred) =>
            {
                let op = match opcode {
                    "and" => Logic::And,
                    "or" => Logic::Or,
                    "xor" => Logic::Xor,
                    "not" => Logic::Not,
                    _ => Logic::Move,
                };
                let Some(a) = rest.first() else {
                    return self.fail("operand missing");
                };
                let d = self.predicate_target(d)?;
                let (a, b) = (
                    self.predicate(a)?,
                    self.predicate(rest.get(1).unwrap_or(a))?,
                );
                Ok((Op::Logic { op, d, a, b }, InstructionClass::Predicate))
            }
            ("add" | "addc" | "sub" | "subc", [d, a, b]) => {
                let carry_out = modifiers.take("cc");
                let carry_in = opcode.len() == 4;
                if !carry_in && !carry_out {
                    return self.pure(opcode, modifiers, operands);
                }
                let bits = modifiers.ty().map_or(32, ScalarType::bits);
                let (a, b) = (self.source(a, bits)?, self.source(b, bits)?);
                let d = self.target(d)?;
                let subtract = opcode.starts_with("sub");
                let op = Op::Carry {
                    bits,
                    d,
                    a,
                    b,
                    carry_in,
                    carry_out,
                    subtract,
                };
                Ok((op, InstructionClass::Integer))
            }
            _ => self.pure(opcode, modifiers, operands),
        }
    }

    fn pure(
        &mut self,
        opcode: &str,
        modifiers: &mut Modifiers,
        operands: &[Operand],
    ) -> Decoded<Made> {
        let types: Vec<String> = modifiers.types().iter().map(ToString::to_string).collect();
        let Some(resolved) = lanes::resolve(opcode, modifiers) else {
            return self.fail(format!(
                "`{opcode}{}` in this form is not modelled",
                types.concat()
            ));
        };
        let Some((d, sources)) = operands.split_first() else {
            return self.fail(format!("`{opcode}` without operands"));
        };
        if sources.len() != resolved.inputs {
            let (expected, got) = (resolved.inputs, sources.len());
            return self.fail(format!("`{opcode}` takes {expected} sources, got {got}"));
        }
        let mut inputs = [Reg::ZERO; 4];
        for (i, source) in sources.iter().enumerate() {
            inputs[i] = self.source(source, resolved.widths[i])?;
        }
        if let Some(constant) = resolved.constant {
            inputs[sources.len()] = self.constant(constant);
        }
        let ty = modifiers.ty();
        let class = match opcode {
            "mov" => InstructionClass::Move,
            "cvt" => InstructionClass::Convert,
            "ex2" | "lg2" | "rsqrt" | "sin" | "cos" | "tanh" | "sqrt" | "rcp" => {
                InstructionClass::Special
            }
            _ if ty.is_some_and(ScalarType::is_float) => InstructionClass::Float,
            _ => InstructionClass::Integer,
        };
        Ok((
            Op::Lanes {
                function: resolved.function,
                d: self.target(d)?,
                inputs,
            },
            class,
        ))
    }

    fn compare(
        &mut self,
        modifiers: &mut Modifiers,
        d: &Operand,
        a: &Operand,
        b: &Operand,
        rest: &[Operand],
    ) -> Decoded<Made> {
        const OPERATORS: [&str; 18] = [
            "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu",
            "gtu", "geu", "num", "nan",
        ];
        let flush = modifiers.take("ftz");
        let (Some(operator), Some(ty)) = (modifiers.take_any(&OPERATORS), modifiers.ty()) else {
            return self.fail("setp without an operator or type");
        };
        let Some(function) = lanes::compare(operator, ty, flush) else {
            return self.fail(format!("setp.{operator}{ty} is not modelled"));
        };
        let logic = match modifiers.take_any(&["and", "or", "xor"]) {
            Some("and") => Some(Logic::And),
            Some("or") => Some(Logic::Or),
            Some(_) => Some(Logic::Xor),
            None => None,
        };
        let with = match (logic, rest) {
            (None, []) => None,
            (Some(logic), [p]) => Some((logic, self.predicate(p)?)),
            _ => return self.fail("setp with a combination that does not fit its operands"),
        };
        let (d, other) = self.predicate_targets(d)?;
        let (a, b) = (self.source(a, ty.bits())?, self.source(b, ty.bits())?);
        Ok((
            Op::Compare {
                function,
                d,
                other,
                a,
                b,
                with,
            },
            InstructionClass::Predicate,
        ))
    }

    fn pack(&mut self, modifiers: &mut Modifiers, d: &Operand, parts: &[Operand]) -> Decoded<Made> {
        let bits = modifiers.ty().map_or(0, ScalarType::bits) / parts.len().max(1) as u32;
        let parts = parts.iter().map(|part| self.source(part, bits));
        let parts = parts.collect::<Decoded<Vec<_>>>()?;
        Ok((
            Op::Pack {
                d: self.target(d)?,
                parts,
                bits,
            },
            InstructionClass::Move,
        ))
    }

    fn unpack(&mut self, modifiers: &mut Modifiers, d: &Operand, a: &Operand) -> Decoded<Made> {
        let total = modifiers.ty().map_or(0, ScalarType::bits);
        let elements = Self::elements(d);
        let bits = total / elements.len().max(1) as u32;
        let is_sink = |e: &Operand| matches!(e, Operand::Name(name) if name == "_");
        let parts = elements
            .iter()
            .map(|e| {
                if is_sink(e) {
                    Ok(None)
                } else {
                    self.target(e).map(Some)
                }
            })
            .collect::<Decoded<Vec<_>>>()?;
        Ok((
            Op::Unpack {
                parts,
                a: self.source(a, total)?,
                bits,
            },
            InstructionClass::Move,
        ))
    }

    fn generic_address(
        &mut self,
        modifiers: &mut Modifiers,
        d: &Operand,
        a: &Operand,
    ) -> Decoded<Made> {
        let from_generic = modifiers.take("to");
        let space = modifiers.take_any(&[
            "global",
            "const",
            "shared",
            "shared::cta",
            "local",
            "param",
            "param::entry",
        ]);
        let window = match space {
            Some("global" | "const") => 0,
            Some("shared" | "shared::cta") => SHARED_WINDOW,
            Some("local") => LOCAL_WINDOW,
            Some("param" | "param::entry") => PARAM_WINDOW,
            _ => return self.fail("cvta of an unknown space"),
        };
        if modifiers.ty() != Some(ScalarType::U64) {
            return self.fail("cvta of 32-bit addresses is not modelled");
        }
        let window = if from_generic {
            0u64.wrapping_sub(window)
        } else {
            window
        };
        let function = lanes::lanes!(|a: u64, b: u64| a.wrapping_add(b));
        let inputs = [
            self.source(a, 64)?,
            self.constant(window),
            Reg::ZERO,
            Reg::ZERO,
        ];
        Ok((
            Op::Lanes {
                function,
                d: self.target(d)?,
                inputs,
            },
            InstructionClass::Move,
        ))
    }
}
