//! Products on the CPU.

use super::{
    Args, ColumnSums, DroppedTerm, Elements, Matrix, Prepared, Product, Start, Through,
    dropout::{Dropped, Mask},
    matmul::{self, Base, Gate, Operand, Output, Precision, Term, Weight},
};
use crate::{
    Checked, KernelError,
    cpu::{
        block_rows,
        float::{Activation, round},
    },
    nf4,
};
use half::bf16;
use tightrope_device::{Cpu, DType, Device, View, ViewMut, vectorize};

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

/// The precision of a product whose left factor has this type.
fn precision(a: DType) -> Precision {
    match a {
        DType::BF16 => Precision::Bf16,
        _ => Precision::F32,
    }
}

/// A result of f32 or bf16, stored by rows.
fn output(c: ViewMut<'_, Cpu>, stride: usize, transposed: bool) -> Result<Output<'_>, KernelError> {
    Ok(match c.dtype() {
        DType::BF16 => Output::new(c.into_slice::<bf16>()?, stride, transposed),
        _ => Output::new(c.into_slice::<f32>()?, stride, transposed),
    })
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
        let args = args.on(self)?;
        match args.a.elements.view().dtype() {
            DType::BF16 => product::<bf16>(self, args),
            _ => product::<f32>(self, args),
        }
    }

    fn product_through(&self, args: Checked<Through<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.a.dtype() {
            DType::BF16 => product_through::<bf16>(self, args),
            _ => product_through::<f32>(self, args),
        }
    }

    fn column_sums(&self, args: Checked<ColumnSums<'_, Self>>) -> Result<(), KernelError> {
        let ColumnSums { rows, sums, m, n } = args.on(self)?;
        let sums = sums.into_slice::<f32>()?;
        match rows.dtype() {
            DType::BF16 => add_columns::<bf16>(rows.as_slice()?, sums, m, n),
            _ => add_columns::<f32>(rows.as_slice()?, sums, m, n),
        }
        Ok(())
    }

    fn dropped_term(&self, args: Checked<DroppedTerm<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.c.dtype() {
            DType::BF16 => dropped_term::<bf16>(self, args),
            _ => dropped_term::<f32>(self, args),
        }
    }

    fn rounded<'a>(
        &'a self,
        elements: View<'a, Self>,
        len: usize,
        dtype: DType,
    ) -> Result<Prepared<'a, Self>, KernelError> {
        if elements.dtype() == dtype {
            return Ok(Prepared::Stored(elements));
        }
        let mut copy = self.scratch(dtype, &[len])?;
        let from = elements.as_slice::<f32>()?;
        round(copy.view_mut().into_slice::<bf16>()?, &from[..len]);
        Ok(Prepared::Copy(copy))
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

fn product<T: Activation>(cpu: &Cpu, args: Args<'_, Cpu>) -> Result<(), KernelError> {
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
    } = args;
    let stored_a = matmul::Matrix::new(a.elements.view().as_slice::<T>()?, a.stride);
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
    let base = base(start)?;
    let is_narrow = a.transposed && !b.transposed && n < m && n <= NARROW;
    if is_narrow && !matches!(base, Base::Bias(_)) {
        let term = Term {
            a: term.b,
            b: term.a,
            ..term
        };
        let output = output(c.elements, c.stride, !c.transposed)?;
        return matmul::product(cpu, precision(T::DTYPE), (n, m), &[term], base, output);
    }
    let output = output(c.elements, c.stride, c.transposed)?;
    matmul::product(cpu, precision(T::DTYPE), (m, n), &[term], base, output)
}

fn product_through<T: Activation>(cpu: &Cpu, args: Through<'_, Cpu>) -> Result<(), KernelError> {
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
    } = args;
    let a = matmul::Matrix::new(a.as_slice::<T>()?, k);
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
    let (x, base, output) = (x.into_slice::<f32>()?, base(start)?, output(c, n, false)?);
    matmul::product_through(
        cpu,
        precision(T::DTYPE),
        (m, n),
        term,
        through,
        base,
        (x, output),
    )
}

/// Adds sums of f64, in the order of the rows.
fn add_columns<T: Activation>(rows: &[T], sums: &mut [f32], m: usize, n: usize) {
    let mut total = [0f64; 64];
    for (block, sum) in sums.chunks_mut(total.len()).enumerate() {
        let total = &mut total[..sum.len()];
        total.fill(0.0);
        for i in 0..m {
            let row = &rows[i * n + block * 64..][..sum.len()];
            for (total, &value) in total.iter_mut().zip(row) {
                *total += f64::from(value.get());
            }
        }
        for (sum, &total) in sum.iter_mut().zip(total.iter()) {
            *sum = (f64::from(*sum) + total) as f32;
        }
    }
}

fn dropped_term<T: Activation>(cpu: &Cpu, args: DroppedTerm<'_, Cpu>) -> Result<(), KernelError> {
    let (m, n) = (args.m, args.n);
    let term = &args.term.as_slice::<f32>()?[..m * n];
    let c = &mut args.c.into_slice::<T>()?[..m * n];
    let mask = Mask::new(&Some(args.dropout), m)?;
    let adds = args.accumulate;
    let parts = (
        tightrope_device::rows(term, n),
        tightrope_device::rows(c, n),
    );
    cpu.for_each_block(m, block_rows(n), parts, |first, _, (term, c)| {
        let mut kept = vec![0f32; n];
        let width = n.max(1);
        let rows = term.slice.chunks_exact(width);
        for (row, (term, c)) in rows.zip(c.slice.chunks_exact_mut(width)).enumerate() {
            kept.copy_from_slice(term);
            if let Some(mask) = &mask {
                mask.apply(first + row, 0..n, &mut kept);
            }
            write(c, &kept, adds);
        }
    });
    Ok(())
}

vectorize! {
    /// `c = kept`, or `c += kept`.
    fn write<T: Activation>(c: &mut [T], kept: &[f32], adds: bool) {
        for (c, kept) in c.iter_mut().zip(kept) {
            *c = T::rounded(if adds { c.get() + kept } else { *kept });
        }
    }
}
