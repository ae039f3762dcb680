//! Decodes loads, stores, atomics, asynchronous copies and fences.
use super::instruction::Made;
use super::kernel::Decoder;
use super::modifiers::Modifiers;
use crate::PtxError;
use crate::op::{AtomicAccess, AtomicOp, InstructionClass, Op, Ordering, Reg};
use crate::ptx::ast::Operand;
use crate::ptx::types::{ScalarType, Space};

type Decoded<T> = Result<T, PtxError>;

/// State space in the mnemonic; generic if there is none.
fn space(modifiers: &mut Modifiers) -> Space {
    const SPACES: [&str; 10] = [
        "global",
        "const",
        "shared",
        "shared::cta",
        "local",
        "param",
        "param::entry",
        "param::func",
        "shared::cluster",
        "generic",
    ];
    match modifiers.take_any(&SPACES) {
        Some("global" | "const") => Space::Global,
        Some("shared" | "shared::cta") => Space::Shared,
        Some("local") => Space::Local,
        Some("param" | "param::entry" | "param::func") => Space::Param,
        Some("shared::cluster") => {
            // The word is put back: clusters are not modelled, and the remaining word causes the
            // error.
            *modifiers = Modifiers::new(&["shared::cluster".to_string()]);
            Space::Shared
        }
        _ => Space::Generic,
    }
}

fn ordering(modifiers: &mut Modifiers) -> Ordering {
    let ordering = match modifiers.take_any(&[
        "volatile", "relaxed", "acquire", "release", "acq_rel", "weak",
    ]) {
        Some("volatile" | "relaxed") => Ordering::Relaxed,
        Some("acquire") => Ordering::Acquire,
        Some("release") => Ordering::Release,
        Some("acq_rel") => Ordering::AcquireRelease,
        _ => Ordering::Weak,
    };
    modifiers.take_any(&["cta", "cluster", "gpu", "sys"]);
    ordering
}

/// Takes caching and prefetching advice, which changes no value.
fn advice(modifiers: &mut Modifiers) {
    const WORDS: [&str; 20] = [
        "nc",
        "ca",
        "cg",
        "cs",
        "lu",
        "cv",
        "wb",
        "wt",
        "L1::evict_normal",
        "L1::evict_unchanged",
        "L1::evict_first",
        "L1::evict_last",
        "L1::no_allocate",
        "L2::64B",
        "L2::128B",
        "L2::256B",
        "L2::evict_last",
        "L2::evict_normal",
        "L2::evict_first",
        "uni",
    ];
    while modifiers.take_any(&WORDS).is_some() {}
}

impl Decoder<'_> {
    /// Space of an access: `.param` names of functions become local memory when they are inlined.
    fn place(&self, named: Space, variable: Option<Space>) -> Decoded<Space> {
        match (named, variable) {
            (Space::Param, Some(Space::Local)) => Ok(Space::Local),
            (Space::Generic, Some(space)) => Ok(space),
            (named, Some(space)) if named != space => {
                self.fail(format!("a {space} variable in a .{named} access"))
            }
            (named, _) => Ok(named),
        }
    }

    pub(super) fn memory_operation(
        &mut self,
        opcode: &str,
        modifiers: &mut Modifiers,
        operands: &[Operand],
    ) -> Decoded<Option<Made>> {
        let made = match (opcode, operands) {
            ("ld" | "ldu", [d, address]) => self.load(modifiers, d, address)?,
            ("st", [address, value]) => self.store(modifiers, address, value)?,
            ("atom", [d, address, b, rest @ ..]) => {
                let d = Some(self.target(d)?);
                self.atomic(modifiers, d, address, b, rest)?
            }
            ("red", [address, b]) => self.atomic(modifiers, None, address, b, &[])?,
            ("cp", _) => self.copy_async(modifiers, operands)?,
            ("membar", []) => {
                modifiers.take_any(&["cta", "gl", "sys"]);
                Op::Fence
            }
            ("fence", []) => {
                modifiers.take_any(&["sc", "acq_rel", "acquire", "release"]);
                modifiers.take_any(&["cta", "cluster", "gpu", "sys"]);
                Op::Fence
            }
            ("prefetch" | "prefetchu", [_]) => {
                while modifiers
                    .take_any(&[
                        "global",
                        "local",
                        "L1",
                        "L2",
                        "L2::evict_last",
                        "L2::evict_normal",
                    ])
                    .is_some()
                {}
                Op::Nothing
            }
            _ => return Ok(None),
        };
        Ok(Some((made, InstructionClass::Memory)))
    }

    fn load(&mut self, modifiers: &mut Modifiers, d: &Operand, address: &Operand) -> Decoded<Op> {
        let (ordering, named) = (ordering(modifiers), space(modifiers));
        advice(modifiers);
        let (address, variable) = self.address(address)?;
        let space = self.place(named, variable)?;
        let elements = Self::elements(d);
        self.check_vector(modifiers, elements.len())?;
        let (mut widths, mut targets) = (0, Vec::new());
        for element in elements {
            if matches!(element, Operand::Name(name) if name == "_") {
                targets.push(None);
                continue;
            }
            let (reg, bits) = self.target_with_bits(element)?;
            widths = bits;
            targets.push(Some(reg));
        }
        let ty = self.access_type(modifiers)?;
        if widths != 0 && widths < ty.bits() {
            return self.fail(format!("{ty} loaded into a register of {widths} bits"));
        }
        Ok(Op::Load {
            space,
            ty,
            ordering,
            d: targets,
            widths,
            address,
        })
    }

    fn store(
        &mut self,
        modifiers: &mut Modifiers,
        address: &Operand,
        value: &Operand,
    ) -> Decoded<Op> {
        let (ordering, named) = (ordering(modifiers), space(modifiers));
        advice(modifiers);
        let (address, variable) = self.address(address)?;
        let space = self.place(named, variable)?;
        let ty = self.access_type(modifiers)?;
        let values = self.sources(value, ty.bits())?;
        self.check_vector(modifiers, values.len())?;
        Ok(Op::Store {
            space,
            ty,
            ordering,
            values,
            address,
        })
    }

    fn access_type(&self, modifiers: &Modifiers) -> Decoded<ScalarType> {
        match modifiers.ty() {
            Some(ty) if ty != ScalarType::Pred => Ok(ty),
            _ => self.fail("memory access without a type"),
        }
    }

    /// Checks that `.v2` or `.v4` agrees with the operand, and that the access has at most 16
    /// bytes.
    fn check_vector(&self, modifiers: &mut Modifiers, count: usize) -> Decoded<()> {
        let named = match modifiers.take_any(&["v2", "v4"]) {
            Some("v2") => 2,
            Some(_) => 4,
            None => 1,
        };
        if named != count {
            return self.fail(format!("{count} registers in a vector of {named}"));
        }
        let bytes = count * modifiers.ty().map_or(1, ScalarType::bytes);
        if bytes > 16 {
            self.fail(format!("a vector of {bytes} bytes"))
        } else {
            Ok(())
        }
    }

    fn atomic(
        &mut self,
        modifiers: &mut Modifiers,
        d: Option<Reg>,
        address: &Operand,
        b: &Operand,
        rest: &[Operand],
    ) -> Decoded<Op> {
        let ordering = match ordering(modifiers) {
            Ordering::Weak => Ordering::Relaxed,
            other => other,
        };
        let named = space(modifiers);
        advice(modifiers);
        modifiers.take("noftz");
        const OPS: [(&str, AtomicOp); 10] = [
            ("add", AtomicOp::Add),
            ("min", AtomicOp::Min),
            ("max", AtomicOp::Max),
            ("and", AtomicOp::And),
            ("or", AtomicOp::Or),
            ("xor", AtomicOp::Xor),
            ("exch", AtomicOp::Exchange),
            ("cas", AtomicOp::CompareAndSwap),
            ("inc", AtomicOp::Increment),
            ("dec", AtomicOp::Decrement),
        ];
        let Some((_, op)) = OPS.into_iter().find(|(word, _)| modifiers.take(word)) else {
            return self.fail("unknown atomic operation");
        };
        let ty = self.access_type(modifiers)?;
        let bits = ty.bits();
        let is_sum = op == AtomicOp::Add;
        let is_swap = matches!(op, AtomicOp::Exchange | AtomicOp::CompareAndSwap);
        let fits = match ty {
            _ if !ty.is_float() && bits == 16 => is_swap,
            _ if !ty.is_float() => bits >= 32,
            _ => is_sum,
        };
        if !fits {
            return self.fail(format!("atomic {op:?} of {ty} is not modelled"));
        }
        let (address, variable) = self.address(address)?;
        let space = self.place(named, variable)?;
        let b = self.source(b, bits)?;
        let c = match (op, rest) {
            (AtomicOp::CompareAndSwap, [c]) => self.source(c, bits)?,
            (AtomicOp::CompareAndSwap, _) => return self.fail("cas takes three sources"),
            (_, []) => Reg::ZERO,
            _ => return self.fail("too many operands"),
        };
        Ok(Op::Atomic(Box::new(AtomicAccess {
            space,
            op,
            ty,
            ordering,
            d,
            address,
            b,
            c,
        })))
    }

    fn copy_async(&mut self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded<Op> {
        if !modifiers.take("async") {
            return self.fail("only cp.async is modelled");
        }
        if modifiers.take("commit_group") {
            return Ok(Op::CopyCommit);
        }
        if modifiers.take("wait_all") {
            return Ok(Op::CopyWait { pending: None });
        }
        if modifiers.take("wait_group") {
            let [count] = operands else {
                return self.fail("wait_group takes a number");
            };
            let count = u32::try_from(self.literal(count)?).unwrap_or(u32::MAX);
            return Ok(Op::CopyWait {
                pending: Some(count),
            });
        }
        let is_cached_everywhere = modifiers.take("ca");
        advice(modifiers);
        let named =
            modifiers.take_any(&["shared", "shared::cta"]).is_some() && modifiers.take("global");
        let [target, source, bytes, rest @ ..] = operands else {
            return self.fail("cp.async takes two addresses and a size");
        };
        let bytes = self.literal(bytes)? as u32;
        let fits = matches!(
            (is_cached_everywhere, bytes),
            (true, 4 | 8 | 16) | (false, 16)
        );
        if !named || !fits {
            return self.fail(format!(
                "cp.async of {bytes} bytes in this form is not modelled"
            ));
        }
        let available = match rest {
            [] => self.constant(u64::from(bytes)),
            [available] => self.source(available, 32)?,
            _ => return self.fail("too many operands"),
        };
        let (target, source) = (self.address(target)?.0, self.address(source)?.0);
        Ok(Op::CopyAsync {
            target,
            source,
            bytes,
            available,
        })
    }
}
