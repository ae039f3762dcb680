//! The matrix product of the CPU: `C = base + Σ_terms alpha · gate(A·B)`.

mod source;

pub(crate) use source::{Matrix, Rows, Weight};

use rayon::prelude::*;
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
    pub(crate) data: &'a mut [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

/// `C[m, n] = base + Σ_terms alpha · gate(A[m, k] · B[k, n])`.
pub(crate) fn product(
    cpu: &Cpu,
    (m, n): (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    output: Output<'_>,
) {
    let mut result = vec![0f32; m * n];
    for i in 0..m {
        for j in 0..n {
            result[i * n + j] = match base {
                Base::Zero => 0.0,
                Base::Bias(bias) => bias[j],
                Base::Output => output.data[i * output.row_stride + j * output.column_stride],
            };
        }
    }
    for term in terms {
        let dense = |operand: Operand<'_>, count: usize| -> Vec<f32> {
            let mut out = vec![0f32; count * term.k];
            match operand {
                Operand::Rows(rows) => {
                    let mut scratch = vec![0f32; term.k];
                    for (i, out) in out.chunks_exact_mut(term.k.max(1)).enumerate() {
                        out.copy_from_slice(rows.row(i, 0..term.k, &mut scratch));
                    }
                }
                Operand::Columns(rows) => {
                    let mut scratch = vec![0f32; count];
                    for p in 0..term.k {
                        for (i, &v) in rows.row(p, 0..count, &mut scratch).iter().enumerate() {
                            out[i * term.k + p] = v;
                        }
                    }
                }
            }
            out
        };
        let (a, b) = (dense(term.a, m), dense(term.b, n));
        cpu.install(|| {
            result
                .par_chunks_mut(n.max(1))
                .enumerate()
                .for_each(|(i, row)| {
                    let mut values = vec![0f32; n];
                    let a = &a[i * term.k..][..term.k];
                    for (j, value) in values.iter_mut().enumerate() {
                        let b = &b[j * term.k..][..term.k];
                        *value = a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() * term.alpha;
                    }
                    if let Some(gate) = term.gate {
                        gate.apply(i, 0..n, &mut values);
                    }
                    row.iter_mut().zip(&values).for_each(|(r, v)| *r += v);
                });
        });
    }
    for i in 0..m {
        for j in 0..n {
            output.data[i * output.row_stride + j * output.column_stride] = result[i * n + j];
        }
    }
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
