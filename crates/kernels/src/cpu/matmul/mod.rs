//! The matrix product of the CPU: `C = base + Σ_terms alpha · gate(A·B)`.
//!
//! After Goto and van de Geijn (2008): panels packed into contiguous memory, a tile of the result
//! held in registers (`micro`). Each element of the result is a sum over blocks of its `k`, and the
//! blocks depend on the length of the sum alone; so its bits depend neither on the number of threads,
//! nor on the other rows and columns of the product.

mod drive;
mod micro;
mod pack;
mod pieces;
mod small;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use drive::product;
pub(crate) use pack::pack;
pub(crate) use small::{Left, Right, small_product};
pub(crate) use source::{Matrix, Rows, Weight};

use std::ops::Range;

/// One side of a product: element `(i, p)`, `p` being the index that is summed over.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// `(i, p)` is column `p` of row `i`.
    Rows(&'a dyn Rows),
    /// `(i, p)` is column `i` of row `p`.
    Columns(&'a dyn Rows),
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
