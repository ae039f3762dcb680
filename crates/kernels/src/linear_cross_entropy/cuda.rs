//! Output projection and cross-entropy on NVIDIA GPUs: a chunk of rows at a time.

use super::{
    Forward, ForwardBackward, LinearCrossEntropy,
    kernel::{
        LinearCrossEntropyGather, LinearCrossEntropyGradient, LinearCrossEntropyLoss,
        LinearCrossEntropyScatter,
    },
    rows_with_target,
};
use crate::{Checked, KernelError, cast::Source};
use tightrope_device::{
    Cuda, DType, Device, DeviceError, Tensor,
    cuda::{Input, Launch, Matrix, MatrixMut, Output, Product, Varying},
};

const THREADS: u32 = 256;
/// Logits of a chunk take at most this many bytes, unless [`MIN_ROWS`] rows need more.
const CHUNK_BYTES: usize = 256 << 20;
/// Fewer rows would read the weight too often for the arithmetic that is done with it.
const MIN_ROWS: usize = 256;
/// More rows would gain nothing. Few in tests, so that they meet several chunks.
const MAX_ROWS: usize = if cfg!(test) { MIN_ROWS } else { 4096 };
/// Logits of a row start at a multiple of so many, whatever the vocabulary: 256 bytes.
const ROW_MULTIPLE: usize = 64;

impl LinearCrossEntropy for Cuda {
    fn linear_cross_entropy_forward(
        &self,
        args: Checked<Forward<'_, Self>>,
    ) -> Result<(), KernelError> {
        run(self, args.into_inner(), None)
    }

    fn linear_cross_entropy_forward_backward(
        &self,
        args: Checked<ForwardBackward<'_, Self>>,
    ) -> Result<(), KernelError> {
        let ForwardBackward {
            forward,
            scale,
            dx,
            dweight,
        } = args.into_inner();
        run(self, forward, Some(Gradient { scale, dx, dweight }))
    }
}

/// What the backward half writes.
struct Gradient<'a> {
    scale: f32,
    dx: &'a mut Tensor<Cuda>,
    dweight: Option<&'a mut Tensor<Cuda>>,
}

/// Rows of a chunk: a function of the vocabulary alone, so that the order in which `dweight` is
/// summed depends on nothing else.
fn chunk_rows(vocabulary: usize) -> usize {
    (CHUNK_BYTES / (size_of::<f32>() * vocabulary.max(1))).clamp(MIN_ROWS, MAX_ROWS)
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
        losses,
        tokens,
        hidden,
        vocabulary,
    } = forward;
    let mut on_host = vec![0i32; tokens];
    targets.read(&mut on_host)?;
    let rows = rows_with_target(&on_host, vocabulary)?;
    // Classes are counted in 32 bits, as targets are.
    if i32::try_from(vocabulary).is_err() {
        return Err(KernelError::Device(DeviceError::NoKernel {
            operation: "linear_cross_entropy",
            variant: format!("{vocabulary} classes"),
        }));
    }
    cuda.zero(losses.buffer_mut(), 0, tokens * size_of::<f32>())?;
    let dtype = x.dtype();
    if let Some(gradient) = &mut gradient {
        let bytes = tokens * hidden * dtype.size();
        cuda.zero(gradient.dx.buffer_mut(), 0, bytes)?;
    }
    if rows.is_empty() {
        return Ok(());
    }

    let stride = vocabulary.next_multiple_of(ROW_MULTIPLE);
    let capacity = chunk_rows(vocabulary).min(rows.len());
    let logits = cuda.scratch("cross_entropy_logits", capacity * stride * size_of::<f32>())?;
    let gathered = cuda.scratch("cross_entropy_rows", capacity * hidden * dtype.size())?;
    let numbers = cuda.scratch("cross_entropy_row_numbers", capacity * size_of::<u64>())?;
    let (mut logits, mut gathered) = (logits.hold(), gathered.hold());
    let mut numbers = numbers.hold();
    let weight = Source::new(
        cuda,
        "cross_entropy_weight",
        weight,
        vocabulary * hidden,
        dtype,
    )?;
    let weight = weight.convert(cuda)?;
    let width = cuda.index_width(tokens.saturating_mul(hidden));
    let copied = [dtype.name(), width.suffix()];
    for chunk in rows.chunks(capacity) {
        let m = chunk.len();
        let tokens: Vec<u8> = chunk
            .iter()
            .flat_map(|&(t, _)| (t as u64).to_ne_bytes())
            .collect();
        numbers.write(cuda, &tokens)?;
        let launch = Launch::linear(m, THREADS)?;
        let kernel = LinearCrossEntropyGather {
            all: Input::of(x),
            rows: numbers.input(),
            chunk: gathered.output(),
            hidden: hidden as u64,
        };
        // SAFETY: the check of the arguments proved `x`, whose rows are numbered below `tokens`;
        // the scratch memory has `capacity` rows.
        unsafe { kernel.launch(cuda, &copied, launch) }?;
        cuda.matmul(Product {
            a: Matrix::scratch(&gathered, dtype, hidden),
            b: weight.matrix(hidden).transposed(),
            c: MatrixMut::scratch(&mut logits, DType::F32, stride),
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
                logits: logits.input(),
                rows: numbers.input(),
                targets: Input::of(targets),
                softcap: softcap.unwrap_or(0.0),
                losses: Output::of(losses),
                vocabulary: vocabulary as u64,
                stride: stride as u64,
            };
            // SAFETY: the logits are `m` rows of `stride`; the check of the arguments proved
            // `targets` and `losses`, and these rows have targets below the vocabulary.
            unsafe { kernel.launch(cuda, &[], launch) }?;
            continue;
        };
        let kernel = LinearCrossEntropyGradient {
            logits: logits.output(),
            rows: numbers.input(),
            targets: Input::of(targets),
            softcap: softcap.unwrap_or(0.0),
            losses: Output::of(losses),
            vocabulary: vocabulary as u64,
            stride: stride as u64,
        };
        // SAFETY: as above.
        unsafe { kernel.launch(cuda, &[dtype.name()], launch) }?;
        let dlogits = Matrix::scratch(&logits, dtype, stride * size_of::<f32>() / dtype.size());
        // Applied in f32: the gradients of the logits alone are of a size that f16 can hold.
        let alpha = gradient.scale * logit_scale;
        if let Some(dweight) = &mut gradient.dweight {
            cuda.matmul(Product {
                a: dlogits.transposed(),
                b: Matrix::scratch(&gathered, dtype, hidden),
                c: MatrixMut::of(dweight, hidden),
                bias: None,
                m: vocabulary,
                n: hidden,
                k: m,
                alpha,
                accumulate: true,
                varying: Varying::Inner,
            })?;
        }
        cuda.matmul(Product {
            a: dlogits,
            b: weight.matrix(hidden),
            c: MatrixMut::scratch(&mut gathered, dtype, hidden),
            bias: None,
            m,
            n: hidden,
            k: vocabulary,
            alpha,
            accumulate: false,
            varying: Varying::Rows,
        })?;
        let kernel = LinearCrossEntropyScatter {
            chunk: gathered.input(),
            rows: numbers.input(),
            all: Output::of(gradient.dx),
            hidden: hidden as u64,
        };
        // SAFETY: as for gathering; the check of the arguments proved `dx`.
        unsafe { kernel.launch(cuda, &copied, launch) }?;
    }
    Ok(())
}
