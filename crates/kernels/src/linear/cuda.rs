//! Linear layers on NVIDIA GPUs: matrix products through cuBLASLt in the type of the activations.
//!
//! What is stored in another type (the base weight perhaps, in NF4 or not, the bias and the adapter's
//! matrices, `xa` and `dyb`) is rounded to that type in working memory before it is multiplied; sums are
//! f32. The
//! adapter's share, which is small, is written first and the base product added to it, so that of
//! the two roundings the one of the larger number comes once.

use super::{
    BackwardInput, BackwardWeights, Dropout, Forward, Linear, Shape, Weight,
    dropout::Parameters,
    kernel::{LinearAddPartials, LinearColumnSums, LinearDropout, LinearDropoutGradient},
};
use crate::{Checked, KernelError, cast::Source, partials};
use tightrope_device::{
    Cuda, DType, Tensor,
    cuda::{Input, Launch, Matrix, MatrixMut, Output, Product, Varying, vector_width},
};

const THREADS: u32 = 256;
/// Bytes of f32 that dropout has in working memory at a time, unless [`LEAST_ROWS`] need more. Few
/// in tests, so that they meet several chunks.
const DROPOUT_BYTES: usize = if cfg!(test) { 1 << 16 } else { 64 << 20 };
const LEAST_ROWS: usize = 128;
/// Rows whose sum is a partial sum of the bias's gradient. Fixed, so that the result does not
/// depend on the GPU.
const RUN: usize = 256;

/// A base weight of `len` elements, and room for its copy.
fn stored<'a>(
    cuda: &Cuda,
    weight: Weight<'a, Cuda>,
    len: usize,
    dtype: DType,
) -> Result<Source<'a>, KernelError> {
    let name = "linear_weight";
    match weight {
        Weight::Float(weight) => Source::new(cuda, name, weight, len, dtype),
        Weight::Nf4(weight) => Source::nf4(cuda, name, weight, len, dtype),
    }
}

impl Linear for Cuda {
    fn linear_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let Forward {
            x,
            weight,
            bias,
            lora,
            y,
            shape,
        } = args.into_inner();
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let dtype = x.dtype();
        let has_adapter = lora.is_some();
        if let Some(lora) = lora {
            let rank = lora.a.shape()[0];
            let a = Source::new(self, "linear_a", lora.a, rank * inputs, dtype)?;
            let a = a.convert(self)?;
            dropped(self, x, &lora.dropout, shape, |first, rows, x| {
                self.matmul(Product {
                    a: x,
                    b: a.matrix(inputs).transposed(),
                    c: MatrixMut::of(lora.xa, rank).from_row(first),
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
            let xa = Source::new(self, "linear_xa", lora.xa, tokens * rank, dtype)?;
            let b = Source::new(self, "linear_b", lora.b, outputs * rank, dtype)?;
            self.matmul(Product {
                a: xa.convert(self)?.matrix(rank),
                b: b.convert(self)?.matrix(rank).transposed(),
                c: MatrixMut::of(y, outputs),
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
            Some(bias) => Some(Source::new(self, "linear_bias", bias, outputs, dtype)?),
            None => None,
        };
        let bias = match &bias {
            Some(bias) => Some(bias.convert(self)?),
            None => None,
        };
        self.matmul(Product {
            a: Matrix::of(x, inputs),
            b: weight.convert(self)?.matrix(inputs).transposed(),
            c: MatrixMut::of(y, outputs),
            bias: bias.as_ref().map(|bias| bias.matrix(outputs)),
            m: tokens,
            n: outputs,
            k: inputs,
            alpha: 1.0,
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
            lora,
            dx,
            accumulate,
            shape,
        } = args.into_inner();
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let dtype = dy.dtype();
        // dy · `factor`, which is [outputs, n].
        let through = |factor: Matrix<'_>, c: MatrixMut<'_>, n, accumulate| {
            self.matmul(Product {
                a: Matrix::of(dy, outputs),
                b: factor,
                c,
                bias: None,
                m: tokens,
                n,
                k: outputs,
                alpha: 1.0,
                accumulate,
                varying: Varying::Rows,
            })
        };
        let mut accumulate = accumulate;
        let mut dx = dx;
        if let Some(lora) = lora {
            let rank = lora.a.shape()[0];
            let b = Source::new(self, "linear_b", lora.b, outputs * rank, dtype)?;
            let dyb = MatrixMut::of(lora.dyb, rank);
            through(b.convert(self)?.matrix(rank), dyb, rank, false)?;
            let Some(dx) = &mut dx else {
                return Ok(());
            };
            let dyb = Source::new(self, "linear_dyb", lora.dyb, tokens * rank, dtype)?;
            let a = Source::new(self, "linear_a", lora.a, rank * inputs, dtype)?;
            let (dyb, a) = (dyb.convert(self)?, a.convert(self)?);
            let through_a = |first, rows, c: MatrixMut<'_>, accumulate| {
                self.matmul(Product {
                    a: dyb.matrix(rank).from_row(first),
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
                None => through_a(0, tokens, MatrixMut::of(dx, inputs), accumulate)?,
                Some((parameters, keys)) => {
                    let chunk = chunk_rows(inputs).min(tokens);
                    let scratch = self.scratch("linear_dropout_gradient", chunk * inputs * 4)?;
                    let mut gradient = scratch.hold();
                    for first in (0..tokens).step_by(chunk.max(1)) {
                        let rows = chunk.min(tokens - first);
                        let c = MatrixMut::scratch(&mut gradient, DType::F32, inputs);
                        through_a(first, rows, c, false)?;
                        let kernel = LinearDropoutGradient {
                            gradient: gradient.input(),
                            dx: Output::of(dx),
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
                        // memory has a chunk of rows.
                        unsafe { kernel.launch(self, &variant, launch) }?;
                    }
                }
            }
            accumulate = true;
        }
        let Some(dx) = dx else {
            return Ok(());
        };
        let weight = stored(self, weight, outputs * inputs, dtype)?;
        let weight = weight.convert(self)?;
        let dx = MatrixMut::of(dx, inputs);
        Ok(through(weight.matrix(inputs), dx, inputs, accumulate)?)
    }

    fn linear_backward_weights(
        &self,
        args: Checked<BackwardWeights<'_, Self>>,
    ) -> Result<(), KernelError> {
        let BackwardWeights {
            x,
            dy,
            dweight,
            dbias,
            lora,
            shape,
        } = args.into_inner();
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
            over_tokens(dy_matrix, Matrix::of(x, inputs), c, sizes, 1.0)?;
        }
        if let Some(dbias) = dbias {
            add_rows(self, dy, dbias, tokens, outputs)?;
        }
        let Some(lora) = lora else {
            return Ok(());
        };
        let rank = lora.da.shape()[0];
        let dyb = Source::new(self, "linear_dyb", lora.dyb, tokens * rank, dtype)?;
        let dyb = dyb.convert(self)?;
        dropped(self, x, &lora.dropout, shape, |first, rows, x| {
            let da = MatrixMut::of(lora.da, inputs);
            let dyb = dyb.matrix(rank).from_row(first);
            over_tokens(dyb, x, da, (rank, inputs, rows), lora.scale)?;
            Ok(())
        })?;
        let xa = Source::new(self, "linear_xa", lora.xa, tokens * rank, dtype)?;
        let xa = xa.convert(self)?;
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

/// The mask, unless nothing is dropped.
fn active<'a>(dropout: &Option<Dropout<'a, Cuda>>) -> Option<(Parameters, &'a Tensor<Cuda>)> {
    let dropout = dropout.filter(|dropout| dropout.probability != 0.0)?;
    Some((Parameters::of(&dropout), dropout.keys))
}

/// Rows that dropout handles at a time: a function of the width alone, so that the order in which
/// `da` is summed depends on nothing else.
fn chunk_rows(inputs: usize) -> usize {
    let rows = DROPOUT_BYTES / (size_of::<f32>() * inputs.max(1));
    // Multiples, so that every chunk starts at an address that is aligned as well as the first.
    (rows - rows % LEAST_ROWS).max(LEAST_ROWS)
}

/// Calls `f` with `dropout(x)`: the first of some rows, their number, and the rows.
fn dropped(
    cuda: &Cuda,
    x: &Tensor<Cuda>,
    dropout: &Option<Dropout<'_, Cuda>>,
    shape: Shape,
    mut f: impl FnMut(usize, usize, Matrix<'_>) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let Shape { tokens, inputs, .. } = shape;
    let Some((parameters, keys)) = active(dropout) else {
        return f(0, tokens, Matrix::of(x, inputs));
    };
    let dtype = x.dtype();
    let chunk = chunk_rows(inputs).min(tokens);
    let scratch = cuda.scratch("linear_dropout", chunk * inputs * dtype.size())?;
    let mut kept = scratch.hold();
    for first in (0..tokens).step_by(chunk.max(1)) {
        let rows = chunk.min(tokens - first);
        let kernel = LinearDropout {
            x: Input::of(x),
            dropped: kept.output(),
            salt: parameters.salt,
            keys: Input::of(keys),
            threshold: parameters.threshold,
            factor: parameters.factor,
            first: first as u64,
            inputs: inputs as u64,
        };
        let width = cuda.index_width(tokens.saturating_mul(inputs));
        let variant = [dtype.name(), width.suffix()];
        // SAFETY: the check of the arguments proved `x` and `keys`; the scratch memory has a chunk
        // of rows.
        unsafe { kernel.launch(cuda, &variant, Launch::linear(rows, THREADS)?) }?;
        f(first, rows, Matrix::scratch(&kept, dtype, inputs))?;
    }
    Ok(())
}

/// `dbias[j] += Σ_t dy[t, j]`: runs of rows, then the runs in order.
fn add_rows(
    cuda: &Cuda,
    dy: &Tensor<Cuda>,
    dbias: &mut Tensor<Cuda>,
    tokens: usize,
    outputs: usize,
) -> Result<(), KernelError> {
    let dtype = dy.dtype();
    let runs = tokens.div_ceil(RUN);
    let scratch = cuda.scratch("linear_column_sums", runs * outputs * size_of::<f32>())?;
    let mut partial = scratch.hold();
    let kernel = LinearColumnSums {
        dy: Input::of(dy),
        partial: partial.output(),
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
    unsafe { kernel.launch(cuda, &[dtype.name(), width.suffix()], launch) }?;
    let kernel = LinearAddPartials {
        partial: partial.input(),
        dbias: Output::of(dbias),
        runs: runs as u64,
        outputs: outputs as u64,
    };
    let launch = partials::launch(outputs)?;
    // SAFETY: as above; `dbias` has `outputs` elements.
    Ok(unsafe { kernel.launch(cuda, &[], launch) }?)
}
