//! The matrix product of the CPU: `C = base + Σ_terms alpha · gate(A·B)`.
//!
//! After Goto and van de Geijn (2008): panels packed into contiguous memory, a tile of the result
//! held in registers (`micro`). Each element of the result is a sum over blocks of its `k`, and the
//! blocks depend on the length of the sum alone; so its bits depend neither on the number of threads,
//! nor on the other rows and columns of the product.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod drive;
mod micro;
mod pack;
mod pieces;
mod small;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use pack::pack;
pub(crate) use small::{Left, Right, small_product};
pub(crate) use source::{Matrix, Rows, Weight};

use crate::KernelError;
use std::ops::Range;
use tightrope_device::Cpu;

/// One side of a product: element `(i, p)`, `p` being the index that is summed over.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// `(i, p)` is column `p` of row `i`.
    Rows(&'a dyn Rows),
    /// `(i, p)` is column `i` of row `p`.
    Columns(&'a dyn Rows),
}

impl<'a> Operand<'a> {
    fn rows(&self) -> &'a dyn Rows {
        let (Self::Rows(rows) | Self::Columns(rows)) = self;
        *rows
    }
}

/// Something that multiplies elements of a result by factors of their own.
pub(crate) trait Gate: Sync {
    /// Multiplies `values`, which are the elements `columns` of `row`.
    fn apply(&self, row: usize, columns: Range<usize>, values: &mut [f32]);
}

/// `alpha · gate(A·B)`.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    pub(crate) a: Operand<'a>,
    pub(crate) b: Operand<'a>,
    /// Length of the sum.
    pub(crate) k: usize,
    pub(crate) alpha: f32,
    pub(crate) gate: Option<&'a dyn Gate>,
}

/// What the terms are added to.
#[derive(Clone, Copy)]
pub(crate) enum Base<'a> {
    Zero,
    /// The same for every row.
    Bias(&'a [f32]),
    /// What the output holds.
    Output,
}

/// Where the result goes: element `(i, j)` to `data[i · row_stride + j · column_stride]`.
pub(crate) struct Output<'a> {
    data: &'a mut [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Output<'a> {
    /// `C` is stored by rows of `width` elements.
    pub(crate) fn rows(data: &'a mut [f32], width: usize) -> Self {
        Self {
            data,
            row_stride: width,
            column_stride: 1,
        }
    }

    /// `Cᵀ` is stored by rows of `width` elements.
    pub(crate) fn columns(data: &'a mut [f32], width: usize) -> Self {
        Self {
            data,
            row_stride: 1,
            column_stride: width,
        }
    }
}

/// The memory of the result; tiles of it are written from several threads.
#[derive(Clone, Copy)]
struct Memory {
    data: *mut f32,
    row_stride: usize,
    column_stride: usize,
}

impl Memory {
    fn at(&self, row: usize, column: usize) -> *mut f32 {
        self.data
            .wrapping_add(row * self.row_stride + column * self.column_stride)
    }
}

// SAFETY: threads write disjoint tiles only (`Part::tile` is called once for each).
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// `C[m, n] = base + Σ_terms alpha · gate(A[m, k] · B[k, n])`, by the processor's matrix unit where it has one.
pub(crate) fn product(
    cpu: &Cpu,
    (m, n): (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    output: Output<'_>,
) -> Result<(), KernelError> {
    if m == 0 || n == 0 {
        return Ok(());
    }
    let last = (m - 1) * output.row_stride + (n - 1) * output.column_stride;
    assert!(
        last < output.data.len(),
        "the result does not fit its memory"
    );
    let c = Memory {
        data: output.data.as_mut_ptr(),
        row_stride: output.row_stride,
        column_stride: output.column_stride,
    };
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if cpu.has_tiles() {
        return amx::product(cpu, (m, n), terms, base, c);
    }
    drive::product(cpu, (m, n), terms, base, c)
}

/// `0..len` in parts of at most `limit`.
fn parts(len: usize, limit: usize) -> impl Iterator<Item = Range<usize>> {
    parts_of(0..len, limit)
}

/// The range in parts of at most `limit`.
fn parts_of(range: Range<usize>, limit: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(limit)
        .map(move |start| start..end.min(start + limit))
}
