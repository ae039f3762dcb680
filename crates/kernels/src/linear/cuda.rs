//! Linear layers on NVIDIA GPUs: matrix products through cuBLASLt in the type of the activations.
//!
//! Operands of other types (the base weight in some cases, in NF4 or not, the bias, the adapter's
//! matrices, `xa` and `dyb`) are rounded to that type in working memory before they are multiplied;
//! sums are f32. The small contribution of the adapter is written first and the base product is
//! added to it, so that the larger of the two numbers is rounded once only.

use super::{
    BackwardInput, BackwardWeights, Dropout, Forward, Linear, Shape, Weight,
    dropout::Parameters,
    kernel::{LinearAddPartials, LinearColumnSums, LinearDropout, LinearDropoutGradient},
};
use crate::{Checked, KernelError, cast::Converted, partials};
use tightrope_device::{
    Cuda, DType, Device, View, ViewMut,
    cuda::{Input, Launch, Matrix, MatrixMut, Output, Product, Varying, vector_width},
};

const THREADS: u32 = 256;
/// Largest size in bytes of f32 rows that dropout keeps in working memory, unless [`LEAST_ROWS`]
/// need more.
const DROPOUT_BYTES: usize = 64 << 20;
const SMALL_DROPOUT_BYTES: usize = 1 << 16;
const LEAST_ROWS: usize = 128;
/// Number of rows in a partial sum of the bias's gradient. It is fixed, so that the result does not
/// depend on the GPU.
const RUN: usize = 256;

/// A base weight of `len` elements.
fn stored<'a>(
    cuda: &'a Cuda,
    weight: Weight<'a, Cuda>,
    len: usize,
    dtype: DType,
) -> Result<Converted<'a>, KernelError> {
    match weight {
        Weight::Float(weight) => Converted::new(cuda, weight, len, dtype),
        Weight::Nf4(weight) => Converted::nf4(cuda, weight, len, dtype),
    }
}

impl Linear for Cuda {
    fn linear_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let Forward {
            x,
            weight,
            factor,
            bias,
            lora,
            mut y,
            shape,
        } = args.on(self)?;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let dtype = x.dtype();
        let has_adapter = lora.is_some();
        if let Some(mut lora) = lora {
            let rank = lora.a.shape()[0];
            let a = Converted::new(self, lora.a, rank * inputs, dtype)?;
            dropped(self, x, &lora.dropout, shape, |first, rows, x| {
                self.matmul(Product {
                    a: x,
                    b: a.matrix(inputs).transposed(),
                    c: MatrixMut::of(lora.xa.reborrow(), rank).from_row(first)?,
                    bias: None,
                    m: rows,
                    n: rank,
                    k: inputs,
                    alpha: 1.0,
                    accumulate: false,
                    varying: Varying::Rows,
                })?;
                Ok(())
            })?;
            let xa = Converted::new(self, lora.xa.as_view(), tokens * rank, dtype)?;
            let b = Converted::new(self, lora.b, outputs * rank, dtype)?;
            self.matmul(Product {
                a: xa.matrix(rank),
                b: b.matrix(rank).transposed(),
                c: MatrixMut::of(y.reborrow(), outputs),
                bias: None,
                m: tokens,
                n: outputs,
                k: rank,
                alpha: lora.scale,
                accumulate: false,
                varying: Varying::Rows,
            })?;
        }
        let weight = stored(self, weight, outputs * inputs, dtype)?;
        let bias = match bias {
            Some(bias) => Some(Converted::new(self, bias, outputs, dtype)?),
            None => None,
        };
        self.matmul(Product {
            a: Matrix::of(x, inputs),
            b: weight.matrix(inputs).transposed(),
            c: MatrixMut::of(y, outputs),
            bias: bias.as_ref().map(|bias| bias.matrix(outputs)),
            m: tokens,
            n: outputs,
            k: inputs,
            alpha: factor,
            accumulate: has_adapter,
            varying: Varying::Rows,
        })?;
        Ok(())
    }

    fn linear_backward_input(
        &self,
        args: Checked<BackwardInput<'_, Self>>,
    ) -> Result<(), KernelError> {
        let BackwardInput {
            dy,
            weight,
            factor,
            lora,
            mut dx,
            mut accumulate,
            shape,
        } = args.on(self)?;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let dtype = dy.dtype();
        // alpha · dy · `b`, where `b` is [outputs, n].
        let through = |b: Matrix<'_>, alpha, c: MatrixMut<'_>, n, accumulate| {
            self.matmul(Product {
                a: Matrix::of(dy, outputs),
                b,
                c,
                bias: None,
                m: tokens,
                n,
                k: outputs,
                alpha,
                accumulate,
                varying: Varying::Rows,
            })
        };
        if let Some(mut lora) = lora {
            let rank = lora.a.shape()[0];
            let b = Converted::new(self, lora.b, outputs * rank, dtype)?;
            let dyb = MatrixMut::of(lora.dyb.reborrow(), rank);
            through(b.matrix(rank), 1.0, dyb, rank, false)?;
            let Some(dx) = &mut dx else {
                return Ok(());
            };
            let dyb = Converted::new(self, lora.dyb.as_view(), tokens * rank, dtype)?;
            let a = Converted::new(self, lora.a, rank * inputs, dtype)?;
            let through_a = |first, rows, c: MatrixMut<'_>, accumulate| {
                self.matmul(Product {
                    a: dyb.matrix(rank).from_row(first)?,
                    b: a.matrix(inputs),
                    c,
                    bias: None,
                    m: rows,
                    n: inputs,
                    k: rank,
                    alpha: lora.scale,
                    accumulate,
                    varying: Varying::Rows,
                })
            };
            match active(&lora.dropout) {
                None => through_a(0, tokens, MatrixMut::of(dx.reborrow(), inputs), accumulate)?,
                Some((parameters, keys)) => {
                    let chunk = chunk_rows(self, inputs).min(tokens);
                    let mut gradient = self.scratch(DType::F32, &[chunk, inputs])?;
                    for first in (0..tokens).step_by(chunk.max(1)) {
                        let rows = chunk.min(tokens - first);
                        let c = MatrixMut::of(gradient.view_mut(), inputs);
                        through_a(first, rows, c, false)?;
                        let kernel = LinearDropoutGradient {
                            gradient: Input::of(gradient.view()),
                            dx: Output::of(dx.reborrow()),
                            accumulate: u32::from(accumulate),
                            salt: parameters.salt,
                            keys: Input::of(keys),
                            threshold: parameters.threshold,
                            factor: parameters.factor,
                            first: first as u64,
                            inputs: inputs as u64,
                        };
                        let width = self.index_width(tokens.saturating_mul(inputs));
                        let variant = [dtype.name(), width.suffix()];
                        let launch = Launch::linear(rows, THREADS)?;
                        // SAFETY: the check of the arguments proved `dx` and `keys`; the scratch
                        // memory has room for a chunk of rows.
                        unsafe { self.launch(kernel, &variant, launch) }?;
                    }
                }
            }
            accumulate = true;
        }
        let Some(dx) = dx else {
            return Ok(());
        };
        let weight = stored(self, weight, outputs * inputs, dtype)?;
        let dx = MatrixMut::of(dx, inputs);
        Ok(through(
            weight.matrix(inputs),
            factor,
            dx,
            inputs,
            accumulate,
        )?)
    }

    fn linear_backward_weights(
        &self,
        args: Checked<BackwardWeights<'_, Self>>,
    ) -> Result<(), KernelError> {
        let BackwardWeights {
            x,
            dy,
            dweight,
            factor,
            dbias,
            lora,
            shape,
        } = args.on(self)?;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let dtype = x.dtype();
        // c += alpha · aᵀ · b over `k` tokens.
        let over_tokens = |a: Matrix<'_>, b: Matrix<'_>, c: MatrixMut<'_>, (m, n, k), alpha| {
            self.matmul(Product {
                a: a.transposed(),
                b,
                c,
                bias: None,
                m,
                n,
                k,
                alpha,
                accumulate: true,
                varying: Varying::Inner,
            })
        };
        let dy_matrix = Matrix::of(dy, outputs);
        if let Some(dweight) = dweight {
            let c = MatrixMut::of(dweight, inputs);
            let sizes = (outputs, inputs, tokens);
            over_tokens(dy_matrix, Matrix::of(x, inputs), c, sizes, factor)?;
        }
        if let Some(dbias) = dbias {
            add_rows(self, dy, dbias, tokens, outputs)?;
        }
        let Some(mut lora) = lora else {
            return Ok(());
        };
        let rank = lora.da.shape()[0];
        let dyb = Converted::new(self, lora.dyb, tokens * rank, dtype)?;
        dropped(self, x, &lora.dropout, shape, |first, rows, x| {
            let da = MatrixMut::of(lora.da.reborrow(), inputs);
            let dyb = dyb.matrix(rank).from_row(first)?;
            over_tokens(dyb, x, da, (rank, inputs, rows), lora.scale)?;
            Ok(())
        })?;
        let xa = Converted::new(self, lora.xa, tokens * rank, dtype)?;
        let db = MatrixMut::of(lora.db, rank);
        let sizes = (outputs, rank, tokens);
        Ok(over_tokens(
            dy_matrix,
            xa.matrix(rank),
            db,
            sizes,
            lora.scale,
        )?)
    }
}

/// The mask, or `None` if nothing is dropped.
fn active<'a>(dropout: &Option<Dropout<'a, Cuda>>) -> Option<(Parameters, View<'a, Cuda>)> {
    let dropout = dropout.filter(|dropout| dropout.probability != 0.0)?;
    Some((Parameters::of(&dropout), dropout.keys))
}

/// Number of rows that dropout handles at a time. It depends on the width alone, so that the order
/// in which `da` is summed depends on nothing else.
fn chunk_rows(cuda: &Cuda, inputs: usize) -> usize {
    let rows = cuda.limit(DROPOUT_BYTES, SMALL_DROPOUT_BYTES) / (size_of::<f32>() * inputs.max(1));
    // A multiple, so that every chunk starts at an address that is aligned as well as the first.
    (rows - rows % LEAST_ROWS).max(LEAST_ROWS)
}

/// Calls `f` with `dropout(x)`: the index of the first row, the number of rows, and the rows.
fn dropped(
    cuda: &Cuda,
    x: View<'_, Cuda>,
    dropout: &Option<Dropout<'_, Cuda>>,
    shape: Shape,
    mut f: impl FnMut(usize, usize, Matrix<'_>) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let Shape { tokens, inputs, .. } = shape;
    let Some((parameters, keys)) = active(dropout) else {
        return f(0, tokens, Matrix::of(x, inputs));
    };
    let dtype = x.dtype();
    let chunk = chunk_rows(cuda, inputs).min(tokens);
    let mut kept = cuda.scratch(dtype, &[chunk, inputs])?;
    for first in (0..tokens).step_by(chunk.max(1)) {
        let rows = chunk.min(tokens - first);
        let kernel = LinearDropout {
            x: Input::of(x),
            dropped: Output::of(kept.view_mut()),
            salt: parameters.salt,
            keys: Input::of(keys),
            threshold: parameters.threshold,
            factor: parameters.factor,
            first: first as u64,
            inputs: inputs as u64,
        };
        let width = cuda.index_width(tokens.saturating_mul(inputs));
        let variant = [dtype.name(), width.suffix()];
        // SAFETY: the check of the arguments proved `x` and `keys`; the scratch memory has room for
        // a chunk of rows.
        unsafe { cuda.launch(kernel, &variant, Launch::linear(rows, THREADS)?) }?;
        f(first, rows, Matrix::of(kept.view(), inputs))?;
    }
    Ok(())
}

/// Adds `dbias[j] += Σ_t dy[t, j]`: it sums runs of rows, then the runs in order.
fn add_rows(
    cuda: &Cuda,
    dy: View<'_, Cuda>,
    dbias: ViewMut<'_, Cuda>,
    tokens: usize,
    outputs: usize,
) -> Result<(), KernelError> {
    let dtype = dy.dtype();
    let runs = tokens.div_ceil(RUN);
    let mut partial = cuda.scratch(DType::F32, &[runs, outputs])?;
    let kernel = LinearColumnSums {
        dy: Input::of(dy),
        partial: Output::of(partial.view_mut()),
        tokens: tokens as u64,
        outputs: outputs as u64,
        run: RUN as u64,
    };
    let each = vector_width(dtype, &[outputs]);
    let launch = Launch::linear(runs, THREADS)?;
    let [x, ..] = launch.grid;
    let [y, ..] = Launch::linear(outputs.div_ceil(32 * each), THREADS)?.grid;
    let launch = Launch {
        grid: [x, y, 1],
        ..launch
    };
    let width = cuda.index_width(tokens.saturating_mul(outputs));
    // SAFETY: the check of the arguments proved `dy`; the scratch memory has `outputs` sums for each
    // run.
    unsafe { cuda.launch(kernel, &[dtype.name(), width.suffix()], launch) }?;
    let kernel = LinearAddPartials {
        partial: Input::of(partial.view()),
        dbias: Output::of(dbias),
        runs: runs as u64,
        outputs: outputs as u64,
    };
    let launch = partials::launch(outputs)?;
    // SAFETY: the scratch memory has `outputs` sums for each run, and `dbias` has `outputs`
    // elements.
    Ok(unsafe { cuda.launch(kernel, &[], launch) }?)
}
