//! The matrix product of the CPU: `C = base + Σ_terms alpha · gate(A·B)`.
//!
//! After Goto and van de Geijn (2008): operands are packed into contiguous panels, and a tile of
//! the result is held in registers (`micro`). Each element of the result is a sum over blocks of
//! `k`, and the blocks depend on the length of the sum alone; its bits depend neither on the number
//! of threads nor on the other rows and columns of the product.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod bf16;
mod drive;
mod micro;
mod output;
mod pack;
mod pieces;
mod small;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use output::Output;
pub(crate) use pack::pack;
pub(crate) use small::{Left, Right, small_product};
pub(crate) use source::{Matrix, Rows, Weight};

use crate::KernelError;
use std::ops::Range;
use tightrope_device::Cpu;

/// One operand of a product: element `(i, p)`, where `p` is the index of the sum.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// `(i, p)` is column `p` of row `i`.
    Rows(&'a dyn Rows),
    /// `(i, p)` is column `i` of row `p`.
    Columns(&'a dyn Rows),
}

impl<'a> Operand<'a> {
    fn rows(self) -> &'a dyn Rows {
        let (Self::Rows(rows) | Self::Columns(rows)) = self;
        rows
    }
}

/// Multiplies elements of a result by individual factors.
pub(crate) trait Gate: Sync {
    /// Multiplies `values`, the elements `columns` of `row`.
    fn apply(&self, row: usize, columns: Range<usize>, values: &mut [f32]);
}

/// One term, `alpha · gate(A·B)`.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    pub(crate) a: Operand<'a>,
    pub(crate) b: Operand<'a>,
    /// Length of the sum.
    pub(crate) k: usize,
    pub(crate) alpha: f32,
    pub(crate) gate: Option<&'a dyn Gate>,
}

/// Values that the terms are added to.
#[derive(Clone, Copy)]
pub(crate) enum Base<'a> {
    Zero,
    /// The same values for every row.
    Bias(&'a [f32]),
    /// The contents of the output.
    Output,
}

/// Type that both operands of each term are rounded to before they are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    Bf16,
}

/// Computes `C[m, n] = base + Σ_terms alpha · gate(A[m, k] · B[k, n])`, on the processor's matrix
/// unit if there is one. A result of bf16 takes bf16 operands, and is rounded once.
pub(crate) fn product(
    cpu: &Cpu,
    precision: Precision,
    (m, n): (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    mut output: Output<'_>,
) -> Result<(), KernelError> {
    if m == 0 || n == 0 {
        return Ok(());
    }
    let c = output.target(m, n);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if cpu.has_amx() {
        return amx::product(cpu, precision, (m, n), terms, base, c);
    }
    match precision {
        Precision::F32 => drive::product(cpu, *micro::KERNEL, (m, n), terms, base, c),
        Precision::Bf16 => bf16::product(cpu, (m, n), terms, base, c),
    }
}

/// A second product through a narrow intermediate `X`: an adapter.
#[derive(Clone, Copy)]
pub(crate) struct Through<'a> {
    /// Rows that `X` is made from; `A` itself if absent.
    pub(crate) rows: Option<Operand<'a>>,
    /// `D[k, rank]` and `U[rank, n]`, like `b` of a term.
    pub(crate) down: Operand<'a>,
    pub(crate) up: Operand<'a>,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    /// Gate of `X·U`.
    pub(crate) gate: Option<&'a dyn Gate>,
}

impl<'a> Through<'a> {
    /// The term that makes `X`, for the rows of `term`.
    fn down(&self, term: Term<'a>) -> Term<'a> {
        Term {
            a: self.rows.unwrap_or(term.a),
            b: self.down,
            alpha: 1.0,
            ..term
        }
    }

    /// The term that uses `X`.
    fn up<'b>(&self, x: &'b dyn Rows) -> Term<'b>
    where
        'a: 'b,
    {
        Term {
            a: Operand::Rows(x),
            b: self.up,
            k: self.rank,
            alpha: self.scale,
            gate: self.gate,
        }
    }
}

/// Computes `X[m, rank] = A·D` and `C[m, n] = base + alpha · A·B + scale · gate(X·U)`; `alpha ·
/// A·B` is the term, without a gate.
pub(crate) fn product_through(
    cpu: &Cpu,
    precision: Precision,
    (m, n): (usize, usize),
    term: Term<'_>,
    through: Through<'_>,
    base: Base<'_>,
    (x, mut output): (&mut [f32], Output<'_>),
) -> Result<(), KernelError> {
    let rank = through.rank;
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if cpu.has_amx()
        && term.alpha == 1.0
        && through.rows.is_none()
        && [m, n, rank, term.k].iter().all(|&size| size > 0)
    {
        let targets = (&mut *x, output.target(m, n));
        if amx::product_through(cpu, precision, (m, n), term, through, base, targets)? {
            return Ok(());
        }
    }
    let into = Output::new(&mut *x, rank, false);
    let down = [through.down(term)];
    product(cpu, precision, (m, rank), &down, Base::Zero, into)?;
    let x = Matrix::new(&*x, rank);
    product(
        cpu,
        precision,
        (m, n),
        &[term, through.up(&x)],
        base,
        output,
    )
}

/// Divides `0..len` into parts of at most `limit`.
fn parts(len: usize, limit: usize) -> impl Iterator<Item = Range<usize>> {
    parts_of(0..len, limit)
}

/// Divides the range into parts of at most `limit`.
fn parts_of(range: Range<usize>, limit: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(limit)
        .map(move |start| start..end.min(start + limit))
}
