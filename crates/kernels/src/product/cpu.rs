//! Products on the CPU.

use super::{
    Args, ColumnSums, DroppedTerm, Elements, Matrix, Prepared, Product, Start, Through,
    dropout::{Dropped, Mask},
    matmul::{self, Base, Gate, Operand, Output, Term, Weight},
};
use crate::{Checked, KernelError, cpu::block_rows, nf4};
use tightrope_device::{Cpu, DType, View};

/// A transposed `a` has to be packed like `b`, and the left operand costs more to pack. Up to this
/// many columns, such a product is therefore computed as its transpose.
const NARROW: usize = 256;

/// The stored rows of a factor.
fn rows<'a>(operand: &'static str, matrix: Matrix<'a, Cpu>) -> Result<Weight<'a>, KernelError> {
    match matrix.elements {
        Elements::Float(view) => Weight::new(operand, view, matrix.stride),
        Elements::Nf4(weight) => Ok(Weight::Nf4(nf4::HostRows::new(weight, matrix.stride)?)),
    }
}

/// The left factor: element `(i, p)` is in row `i` of `a`.
fn left<'a>(rows: &'a dyn matmul::Rows, transposed: bool) -> Operand<'a> {
    match transposed {
        false => Operand::Rows(rows),
        true => Operand::Columns(rows),
    }
}

/// The right factor: element `(j, p)` is in column `j` of `b`.
fn right<'a>(rows: &'a dyn matmul::Rows, transposed: bool) -> Operand<'a> {
    left(rows, !transposed)
}

/// The values that terms are added to.
fn base(start: Start<'_, Cpu>) -> Result<Base<'_>, KernelError> {
    Ok(match start {
        Start::Zero => Base::Zero,
        Start::Result => Base::Output,
        Start::Bias(bias) => Base::Bias(bias.as_slice()?),
    })
}

impl Product for Cpu {
    fn product(&self, args: Checked<Args<'_, Self>>) -> Result<(), KernelError> {
        let Args {
            a,
            dropout,
            b,
            alpha,
            start,
            c,
            m,
            n,
            k,
        } = args.on(self)?;
        let stored_a = matmul::Matrix::new(a.elements.view().as_slice::<f32>()?, a.stride);
        let stored_b = rows("b", b)?;
        let mask = Mask::new(&dropout, if a.transposed { k } else { m })?;
        let dropped = mask.as_ref().map(|mask| Dropped { x: stored_a, mask });
        let rows_of_a: &dyn matmul::Rows = match &dropped {
            Some(dropped) => dropped,
            None => &stored_a,
        };
        let term = Term {
            a: left(rows_of_a, a.transposed),
            b: right(stored_b.rows(), b.transposed),
            k,
            alpha,
            gate: None,
        };
        let (elements, base) = (c.elements.into_slice::<f32>()?, base(start)?);
        let is_narrow = a.transposed && !b.transposed && n < m && n <= NARROW;
        if is_narrow && !matches!(base, Base::Bias(_)) {
            let term = Term {
                a: term.b,
                b: term.a,
                ..term
            };
            let output = Output::new(elements, c.stride, !c.transposed);
            return matmul::product(self, (n, m), &[term], base, output);
        }
        let output = Output::new(elements, c.stride, c.transposed);
        matmul::product(self, (m, n), &[term], base, output)
    }

    fn product_through(&self, args: Checked<Through<'_, Self>>) -> Result<(), KernelError> {
        let Through {
            a,
            b,
            alpha,
            before,
            down,
            x,
            up,
            scale,
            after,
            start,
            c,
            m,
            n,
            k,
            rank,
        } = args.on(self)?;
        let a = matmul::Matrix::new(a.as_slice::<f32>()?, k);
        let (stored_b, stored_down) = (rows("b", b)?, rows("down", down)?);
        let stored_up = rows("up", up)?;
        let (before, after) = (Mask::new(&before, m)?, Mask::new(&after, m)?);
        let dropped = before.as_ref().map(|mask| Dropped { x: a, mask });
        let term = Term {
            a: Operand::Rows(&a),
            b: right(stored_b.rows(), b.transposed),
            k,
            alpha,
            gate: None,
        };
        let through = matmul::Through {
            rows: dropped.as_ref().map(|dropped| Operand::Rows(dropped)),
            down: right(stored_down.rows(), down.transposed),
            up: right(stored_up.rows(), up.transposed),
            rank,
            scale,
            gate: after.as_ref().map(|mask| mask as &dyn Gate),
        };
        let (x, c) = (x.into_slice::<f32>()?, c.into_slice::<f32>()?);
        let output = Output::new(c, n, false);
        matmul::product_through(self, (m, n), term, through, base(start)?, x, output)
    }

    fn column_sums(&self, args: Checked<ColumnSums<'_, Self>>) -> Result<(), KernelError> {
        let ColumnSums { rows, sums, m, n } = args.on(self)?;
        let (rows, sums) = (rows.as_slice::<f32>()?, sums.into_slice::<f32>()?);
        // Sums of f64, in the order of the rows.
        let mut total = [0f64; 64];
        for (block, sum) in sums.chunks_mut(total.len()).enumerate() {
            let total = &mut total[..sum.len()];
            total.fill(0.0);
            for i in 0..m {
                let row = &rows[i * n + block * 64..][..sum.len()];
                for (total, &value) in total.iter_mut().zip(row) {
                    *total += f64::from(value);
                }
            }
            for (sum, &total) in sum.iter_mut().zip(total.iter()) {
                *sum = (f64::from(*sum) + total) as f32;
            }
        }
        Ok(())
    }

    fn dropped_term(&self, args: Checked<DroppedTerm<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (m, n) = (args.m, args.n);
        let term = &args.term.as_slice::<f32>()?[..m * n];
        let c = &mut args.c.into_slice::<f32>()?[..m * n];
        let mask = Mask::new(&Some(args.dropout), m)?;
        let adds = args.accumulate;
        let parts = (
            tightrope_device::rows(term, n),
            tightrope_device::rows(c, n),
        );
        self.for_each_block(m, block_rows(n), parts, |first, _, (term, c)| {
            let mut kept = vec![0f32; n];
            let width = n.max(1);
            let rows = term.slice.chunks_exact(width);
            for (row, (term, c)) in rows.zip(c.slice.chunks_exact_mut(width)).enumerate() {
                kept.copy_from_slice(term);
                if let Some(mask) = &mask {
                    mask.apply(first + row, 0..n, &mut kept);
                }
                match adds {
                    true => c.iter_mut().zip(&kept).for_each(|(c, kept)| *c += kept),
                    false => c.copy_from_slice(&kept),
                }
            }
        });
        Ok(())
    }

    fn prepare<'a>(
        &'a self,
        elements: View<'a, Self>,
        _: usize,
        _: DType,
    ) -> Result<Prepared<'a, Self>, KernelError> {
        Ok(Prepared::Stored(elements))
    }
}
