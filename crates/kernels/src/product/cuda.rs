//! Products on NVIDIA GPUs, through cuBLASLt in the type of the left factor.

use super::{
    Args, ColumnSums, Dropout, DroppedTerm, Elements, Matrix, Prepared, Product, Start, Through,
    dropout::Parameters,
    kernel::{ProductAddPartials, ProductColumnSums, ProductDropout, ProductDropoutTerm},
    stored,
};
use crate::{
    Check, Checked, KernelError,
    cast::{Cast, cast},
    nf4::{self, Nf4},
    partials,
};
use tightrope_device::{
    Cuda, DType, Device, View,
    cuda::{self, Input, Launch, Output, Varying, vector_width},
};

const THREADS: u32 = 256;
/// Largest size in bytes of f32 rows that dropout keeps in working memory, unless [`LEAST_ROWS`]
/// need more.
const DROPOUT_BYTES: usize = 64 << 20;
const SMALL_DROPOUT_BYTES: usize = 1 << 16;
const LEAST_ROWS: usize = 128;
/// Number of rows in a partial sum of columns. It is fixed, so that the result does not depend on
/// the GPU.
const RUN: usize = 256;

/// A factor in the type of a product. Keep it until the last product that reads it is issued.
struct Factor<'a> {
    prepared: Prepared<'a, Cuda>,
    stride: usize,
    transposed: bool,
}

impl<'a> Factor<'a> {
    /// A factor of this shape.
    fn new(
        device: &'a Cuda,
        operand: &'static str,
        matrix: Matrix<'a, Cuda>,
        shape: (usize, usize),
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let len = matrix.span(operand, shape)?;
        let prepared = match matrix.elements {
            Elements::Float(view) => device.prepare(view, len, dtype)?,
            Elements::Nf4(weight) => {
                let mut copy = device.scratch(dtype, &[len])?;
                let args = nf4::Dequantize {
                    weight,
                    y: copy.view_mut(),
                    elements: len,
                };
                device.nf4_dequantize(args.checked()?)?;
                Prepared::Copy(copy)
            }
        };
        Ok(Self {
            prepared,
            stride: matrix.stride,
            transposed: matrix.transposed,
        })
    }

    /// The matrix without its first `row` rows.
    fn after(&self, row: usize) -> Result<cuda::Matrix<'_>, KernelError> {
        let (row, column) = stored(self.transposed, (row, 0));
        let view = self.prepared.view();
        let first = row.saturating_mul(self.stride).saturating_add(column);
        let rows = cuda::Matrix::of(view.elements(first..view.len())?, self.stride);
        Ok(oriented(rows, self.transposed))
    }

    fn whole(&self) -> cuda::Matrix<'_> {
        let rows = cuda::Matrix::of(self.prepared.view(), self.stride);
        oriented(rows, self.transposed)
    }
}

fn oriented(rows: cuda::Matrix<'_>, transposed: bool) -> cuda::Matrix<'_> {
    match transposed {
        false => rows,
        true => rows.transposed(),
    }
}

/// The mask, or `None` if nothing is dropped.
fn active<'a>(dropout: &Option<Dropout<'a, Cuda>>) -> Option<(Parameters, View<'a, Cuda>)> {
    let dropout = dropout.filter(|dropout| dropout.probability != 0.0)?;
    Some((Parameters::of(&dropout), dropout.keys))
}

/// Number of rows that dropout handles at a time. It depends on the width alone, so that the order
/// of a sum over rows depends on nothing else.
fn chunk_rows(device: &Cuda, columns: usize) -> usize {
    let bytes = device.limit(DROPOUT_BYTES, SMALL_DROPOUT_BYTES);
    let rows = bytes / (size_of::<f32>() * columns.max(1));
    // A multiple, so that every chunk starts at an address that is aligned as well as the first.
    (rows - rows % LEAST_ROWS).max(LEAST_ROWS)
}

/// Calls `f` with `dropout(x)`: the index of the first row, the number of rows, and the rows. With
/// dropout, the stride is the number of columns.
fn dropped(
    device: &Cuda,
    x: View<'_, Cuda>,
    stride: usize,
    dropout: &Option<Dropout<'_, Cuda>>,
    (count, columns): (usize, usize),
    mut f: impl FnMut(usize, usize, cuda::Matrix<'_>) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let Some((parameters, keys)) = active(dropout).filter(|_| count > 0) else {
        return f(0, count, cuda::Matrix::of(x, stride));
    };
    let dtype = x.dtype();
    let chunk = chunk_rows(device, columns).min(count);
    let mut kept = device.scratch(dtype, &[chunk, columns])?;
    for first in (0..count).step_by(chunk.max(1)) {
        let rows = chunk.min(count - first);
        let kernel = ProductDropout {
            x: Input::of(x),
            dropped: Output::of(kept.view_mut()),
            salt: parameters.salt,
            keys: Input::of(keys),
            threshold: parameters.threshold,
            factor: parameters.factor,
            first: first as u64,
            columns: columns as u64,
        };
        let width = device.index_width(count.saturating_mul(columns));
        let variant = [dtype.name(), width.suffix()];
        // SAFETY: the check of the arguments proved `x` and `keys`; the scratch memory has room for
        // a chunk of rows.
        unsafe { device.launch(kernel, &variant, Launch::linear(rows, THREADS)?) }?;
        f(first, rows, cuda::Matrix::of(kept.view(), columns))?;
    }
    Ok(())
}

/// `c = a·b`, where `m` is the number of tokens.
fn by_rows<'a>(
    a: cuda::Matrix<'a>,
    b: cuda::Matrix<'a>,
    c: cuda::MatrixMut<'a>,
    (m, n, k): (usize, usize, usize),
) -> cuda::Product<'a> {
    cuda::Product {
        a,
        b,
        c,
        bias: None,
        m,
        n,
        k,
        alpha: 1.0,
        accumulate: false,
        varying: Varying::Rows,
    }
}

impl Product for Cuda {
    fn product(&self, args: Checked<Args<'_, Self>>) -> Result<(), KernelError> {
        let Args {
            a,
            dropout,
            b,
            alpha,
            start,
            mut c,
            m,
            n,
            k,
        } = args.on(self)?;
        let x = a.elements.view();
        let b = Factor::new(self, "b", b, (k, n), x.dtype())?;
        let bias = match start {
            Start::Bias(bias) => Some(self.prepare(bias, n, c.elements.dtype())?),
            Start::Zero | Start::Result => None,
        };
        let adds = matches!(start, Start::Result);
        let (stored_c, stride, transposed) = (&mut c.elements, c.stride, c.transposed);
        // With these rows of the stored `a`, which are rows or terms of the product.
        let multiply = |first: usize, count: usize, rows: cuda::Matrix<'_>| {
            let end = stored_c.len();
            let (m, k, skipped, varying) = match a.transposed {
                false => (count, k, stored(transposed, (first, 0)), Varying::Rows),
                true => (m, count, (0, 0), Varying::Inner),
            };
            let c_first = skipped.0.saturating_mul(stride).saturating_add(skipped.1);
            let c = stored_c.reborrow().elements(c_first..end)?;
            let a_matrix = oriented(rows, a.transposed);
            let b = b.after(if a.transposed { first } else { 0 })?;
            let (a_matrix, b, m, n) = match transposed {
                false => (a_matrix, b, m, n),
                true => (b.transposed(), a_matrix.transposed(), n, m),
            };
            self.matmul(cuda::Product {
                a: a_matrix,
                b,
                c: cuda::MatrixMut::of(c, stride),
                bias: bias.as_ref().map(|bias| cuda::Matrix::of(bias.view(), n)),
                m,
                n,
                k,
                alpha,
                accumulate: adds || (a.transposed && first > 0),
                varying,
            })?;
            Ok(())
        };
        dropped(
            self,
            x,
            a.stride,
            &dropout,
            stored(a.transposed, (m, k)),
            multiply,
        )
    }

    fn product_through(&self, args: Checked<Through<'_, Self>>) -> Result<(), KernelError> {
        let Through {
            a,
            b,
            alpha,
            before,
            down,
            mut x,
            up,
            scale,
            after,
            start,
            mut c,
            m,
            n,
            k,
            rank,
        } = args.on(self)?;
        let dtype = a.dtype();
        let down = Factor::new(self, "down", down, (k, rank), dtype)?;
        dropped(self, a, k, &before, (m, k), |first, rows, a| {
            let x = cuda::MatrixMut::of(x.reborrow(), rank).from_row(first)?;
            Ok(self.matmul(by_rows(a, down.whole(), x, (rows, rank, k)))?)
        })?;
        drop(down);
        let x = Factor::new(self, "x", Matrix::rows(x.as_view(), rank), (m, rank), dtype)?;
        let up = Factor::new(self, "up", up, (rank, n), dtype)?;
        let adds = matches!(start, Start::Result);
        match active(&after) {
            None => {
                let c = cuda::MatrixMut::of(c.reborrow(), n);
                self.matmul(cuda::Product {
                    alpha: scale,
                    accumulate: adds,
                    ..by_rows(x.whole(), up.whole(), c, (m, n, rank))
                })?;
            }
            Some((parameters, keys)) => {
                let chunk = chunk_rows(self, n).min(m);
                let mut term = self.scratch(DType::F32, &[chunk, n])?;
                for first in (0..m).step_by(chunk.max(1)) {
                    let rows = chunk.min(m - first);
                    let into = cuda::MatrixMut::of(term.view_mut(), n);
                    let x = x.after(first)?;
                    self.matmul(cuda::Product {
                        alpha: scale,
                        ..by_rows(x, up.whole(), into, (rows, n, rank))
                    })?;
                    let kernel = ProductDropoutTerm {
                        term: Input::of(term.view()),
                        c: Output::of(c.reborrow()),
                        accumulate: u32::from(adds),
                        salt: parameters.salt,
                        keys: Input::of(keys),
                        threshold: parameters.threshold,
                        factor: parameters.factor,
                        first: first as u64,
                        columns: n as u64,
                    };
                    let width = self.index_width(m.saturating_mul(n));
                    let variant = [dtype.name(), width.suffix()];
                    let launch = Launch::linear(rows, THREADS)?;
                    // SAFETY: the check of the arguments proved `c` and `keys`; the scratch memory
                    // has room for a chunk of rows.
                    unsafe { self.launch(kernel, &variant, launch) }?;
                }
            }
        }
        drop((x, up));
        let b = Factor::new(self, "b", b, (k, n), dtype)?;
        let bias = match start {
            Start::Bias(bias) => Some(self.prepare(bias, n, dtype)?),
            Start::Zero | Start::Result => None,
        };
        let bias = bias.as_ref().map(|bias| cuda::Matrix::of(bias.view(), n));
        let (a, c) = (cuda::Matrix::of(a, k), cuda::MatrixMut::of(c, n));
        Ok(self.matmul(cuda::Product {
            bias,
            alpha,
            accumulate: true,
            ..by_rows(a, b.whole(), c, (m, n, k))
        })?)
    }

    fn column_sums(&self, args: Checked<ColumnSums<'_, Self>>) -> Result<(), KernelError> {
        let ColumnSums { rows, sums, m, n } = args.on(self)?;
        let dtype = rows.dtype();
        let runs = m.div_ceil(RUN);
        let mut partial = self.scratch(DType::F32, &[runs, n])?;
        let kernel = ProductColumnSums {
            rows: Input::of(rows),
            partial: Output::of(partial.view_mut()),
            count: m as u64,
            columns: n as u64,
            run: RUN as u64,
        };
        let each = vector_width(dtype, &[n]);
        let launch = Launch::linear(runs, THREADS)?;
        let [x, ..] = launch.grid;
        let [y, ..] = Launch::linear(n.div_ceil(32 * each), THREADS)?.grid;
        let launch = Launch {
            grid: [x, y, 1],
            ..launch
        };
        let width = self.index_width(m.saturating_mul(n));
        // SAFETY: the check of the arguments proved `rows`; the scratch memory has `n` sums for
        // each run.
        unsafe { self.launch(kernel, &[dtype.name(), width.suffix()], launch) }?;
        let kernel = ProductAddPartials {
            partial: Input::of(partial.view()),
            sums: Output::of(sums),
            runs: runs as u64,
            columns: n as u64,
        };
        let launch = partials::launch(n)?;
        // SAFETY: the scratch memory has `n` sums for each run, and `sums` has `n` elements.
        Ok(unsafe { self.launch(kernel, &[], launch) }?)
    }

    fn dropped_term(&self, args: Checked<DroppedTerm<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let dtype = args.c.dtype();
        let parameters = Parameters::of(&args.dropout);
        let width = self.index_width(args.m.saturating_mul(args.n));
        let kernel = ProductDropoutTerm {
            term: Input::of(args.term),
            c: Output::of(args.c),
            accumulate: u32::from(args.accumulate),
            salt: parameters.salt,
            keys: Input::of(args.dropout.keys),
            threshold: parameters.threshold,
            factor: parameters.factor,
            first: 0,
            columns: args.n as u64,
        };
        let variant = [dtype.name(), width.suffix()];
        let launch = Launch::linear(args.m, THREADS)?;
        // SAFETY: the check of the arguments proved every operand.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn prepare<'a>(
        &'a self,
        elements: View<'a, Self>,
        len: usize,
        dtype: DType,
    ) -> Result<Prepared<'a, Self>, KernelError> {
        if elements.dtype() == dtype {
            return Ok(Prepared::Stored(elements));
        }
        let mut copy = self.scratch(dtype, &[len])?;
        let args = Cast {
            from: elements,
            to: copy.view_mut(),
            elements: len,
        };
        cast(self, args.checked()?)?;
        Ok(Prepared::Copy(copy))
    }
}
