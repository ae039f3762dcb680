//! Output projection and cross-entropy on NVIDIA GPUs: a chunk of rows at a time.

use super::{
    Forward, ForwardBackward, LinearCrossEntropy,
    kernel::{
        LinearCrossEntropyGather, LinearCrossEntropyGradient, LinearCrossEntropyLoss,
        LinearCrossEntropyScatter,
    },
    rows_with_target,
};
use crate::{Checked, KernelError, cast::Converted};
use tightrope_device::{
    Cuda, DType, Device, DeviceError, View, ViewMut,
    cuda::{Input, Launch, Matrix, MatrixMut, Output, Product, Varying},
};

const THREADS: u32 = 256;
/// Largest size in bytes of the logits of a chunk, unless [`MIN_ROWS`] rows need more.
const CHUNK_BYTES: usize = 256 << 20;
/// With fewer rows the weight would be read too often for the amount of arithmetic.
const MIN_ROWS: usize = 256;
/// More rows would gain nothing.
const MAX_ROWS: usize = 4096;
/// Logits of a row start at a multiple of this number of elements (256 bytes), whatever the
/// vocabulary.
const ROW_MULTIPLE: usize = 64;

impl LinearCrossEntropy for Cuda {
    fn linear_cross_entropy_forward(
        &self,
        args: Checked<Forward<'_, Self>>,
    ) -> Result<(), KernelError> {
        run(self, args.on(self)?, None)
    }

    fn linear_cross_entropy_forward_backward(
        &self,
        args: Checked<ForwardBackward<'_, Self>>,
    ) -> Result<(), KernelError> {
        let ForwardBackward {
            forward,
            weights,
            dx,
            dweight,
        } = args.on(self)?;
        run(
            self,
            forward,
            Some(Gradient {
                weights,
                dx,
                dweight,
            }),
        )
    }
}

/// Output of the backward half.
struct Gradient<'a> {
    weights: View<'a, Cuda>,
    dx: ViewMut<'a, Cuda>,
    dweight: Option<ViewMut<'a, Cuda>>,
}

/// Number of rows in a chunk. It depends on the vocabulary alone, so that the order in which
/// `dweight` is summed depends on nothing else.
fn chunk_rows(cuda: &Cuda, vocabulary: usize) -> usize {
    let most = cuda.limit(MAX_ROWS, MIN_ROWS);
    (CHUNK_BYTES / (size_of::<f32>() * vocabulary.max(1))).clamp(MIN_ROWS, most)
}

fn run(
    cuda: &Cuda,
    forward: Forward<'_, Cuda>,
    mut gradient: Option<Gradient<'_>>,
) -> Result<(), KernelError> {
    let Forward {
        x,
        weight,
        targets,
        logit_scale,
        softcap,
        mut losses,
        tokens,
        hidden,
        vocabulary,
    } = forward;
    let mut on_host = vec![0i32; tokens];
    targets.read(&mut on_host)?;
    let rows = rows_with_target(&on_host, vocabulary)?;
    // Classes are counted in 32 bits, like targets.
    if i32::try_from(vocabulary).is_err() {
        return Err(KernelError::Device(DeviceError::NoKernel {
            operation: "linear_cross_entropy",
            variant: format!("{vocabulary} classes"),
        }));
    }
    losses.reborrow().elements(0..tokens)?.zero()?;
    let dtype = x.dtype();
    if let Some(gradient) = &mut gradient {
        let dx = gradient.dx.reborrow().elements(0..tokens * hidden)?;
        dx.zero()?;
    }
    if rows.is_empty() {
        return Ok(());
    }

    let stride = vocabulary.next_multiple_of(ROW_MULTIPLE);
    let capacity = chunk_rows(cuda, vocabulary).min(rows.len());
    let mut logits = cuda.scratch(DType::F32, &[capacity, stride])?;
    let mut gathered = cuda.scratch(dtype, &[capacity, hidden])?;
    let mut numbers = cuda.scratch(DType::U8, &[capacity * size_of::<u64>()])?;
    let weight = Converted::new(cuda, weight, vocabulary * hidden, dtype)?;
    let width = cuda.index_width(tokens.saturating_mul(hidden));
    let copied = [dtype.name(), width.suffix()];
    for chunk in rows.chunks(capacity) {
        let m = chunk.len();
        let tokens: Vec<u8> = chunk
            .iter()
            .flat_map(|&(t, _)| (t as u64).to_ne_bytes())
            .collect();
        numbers.view_mut().write(&tokens)?;
        let launch = Launch::linear(m, THREADS)?;
        let kernel = LinearCrossEntropyGather {
            all: Input::of(x),
            rows: Input::of(numbers.view()),
            chunk: Output::of(gathered.view_mut()),
            hidden: hidden as u64,
        };
        // SAFETY: the check of the arguments proved `x`, whose rows are numbered below `tokens`;
        // the scratch memory has `capacity` rows.
        unsafe { cuda.launch(kernel, &copied, launch) }?;
        cuda.matmul(Product {
            a: Matrix::of(gathered.view(), hidden),
            b: weight.matrix(hidden).transposed(),
            c: MatrixMut::of(logits.view_mut(), stride),
            bias: None,
            m,
            n: vocabulary,
            k: hidden,
            alpha: logit_scale,
            accumulate: false,
            varying: Varying::Rows,
        })?;
        let Some(gradient) = &mut gradient else {
            let kernel = LinearCrossEntropyLoss {
                logits: Input::of(logits.view()),
                rows: Input::of(numbers.view()),
                targets: Input::of(targets),
                softcap: softcap.unwrap_or(0.0),
                losses: Output::of(losses.reborrow()),
                vocabulary: vocabulary as u64,
                stride: stride as u64,
            };
            // SAFETY: the logits are `m` rows of `stride`; the check of the arguments proved
            // `targets` and `losses`, and these rows have targets below the vocabulary.
            unsafe { cuda.launch(kernel, &[], launch) }?;
            continue;
        };
        let kernel = LinearCrossEntropyGradient {
            logits: Output::of(logits.view_mut()),
            rows: Input::of(numbers.view()),
            targets: Input::of(targets),
            weights: Input::of(gradient.weights),
            softcap: softcap.unwrap_or(0.0),
            losses: Output::of(losses.reborrow()),
            vocabulary: vocabulary as u64,
            stride: stride as u64,
        };
        // SAFETY: the logits are `m` rows of `stride`; the check of the arguments proved `targets`,
        // `losses` and `weights`, and these rows have targets below the vocabulary.
        unsafe { cuda.launch(kernel, &[dtype.name()], launch) }?;
        let dlogits = logits.view().reinterpreted(dtype)?;
        let dlogits = Matrix::of(dlogits, stride * size_of::<f32>() / dtype.size());
        if let Some(dweight) = &mut gradient.dweight {
            cuda.matmul(Product {
                a: dlogits.transposed(),
                b: Matrix::of(gathered.view(), hidden),
                c: MatrixMut::of(dweight.reborrow(), hidden),
                bias: None,
                m: vocabulary,
                n: hidden,
                k: m,
                alpha: logit_scale,
                accumulate: true,
                varying: Varying::Inner,
            })?;
        }
        cuda.matmul(Product {
            a: dlogits,
            b: weight.matrix(hidden),
            c: MatrixMut::of(gathered.view_mut(), hidden),
            bias: None,
            m,
            n: hidden,
            k: vocabulary,
            alpha: logit_scale,
            accumulate: false,
            varying: Varying::Rows,
        })?;
        let kernel = LinearCrossEntropyScatter {
            chunk: Input::of(gathered.view()),
            rows: Input::of(numbers.view()),
            all: Output::of(gradient.dx.reborrow()),
            hidden: hidden as u64,
        };
        // SAFETY: the check of the arguments proved `dx`, whose rows are numbered below `tokens`;
        // the scratch memory has `capacity` rows.
        unsafe { cuda.launch(kernel, &copied, launch) }?;
    }
    Ok(())
}
