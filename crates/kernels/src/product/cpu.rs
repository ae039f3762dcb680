//! Matrix products on the CPU.

use super::{Args, Product};
use crate::{
    Checked, KernelError,
    cpu::matmul::{self, Base, Operand, Output, Term, Weight},
};
use tightrope_device::Cpu;

impl Product for Cpu {
    fn product(&self, args: Checked<Args<'_, Self>>) -> Result<(), KernelError> {
        let Args {
            a,
            b,
            c,
            accumulate,
            alpha,
            m,
            n,
            k,
        } = args.on(self)?;
        let c = c.into_slice::<f32>()?;
        if k == 0 {
            if !accumulate {
                c[..m * n].fill(0.0);
            }
            return Ok(());
        }
        let stored_a = Weight::new("a", a.elements, if a.transposed { m } else { k })?;
        let stored_b = Weight::new("b", b.elements, if b.transposed { k } else { n })?;
        // Both operands are given by their elements `(i, p)`, where `p` is the index of the sum.
        let term = Term {
            a: match a.transposed {
                false => Operand::Rows(stored_a.rows()),
                true => Operand::Columns(stored_a.rows()),
            },
            b: match b.transposed {
                false => Operand::Columns(stored_b.rows()),
                true => Operand::Rows(stored_b.rows()),
            },
            k,
            alpha,
            gate: None,
        };
        let base = match accumulate {
            true => Base::Output,
            false => Base::Zero,
        };
        matmul::product(self, (m, n), &[term], base, Output::rows(c, n))
    }
}
