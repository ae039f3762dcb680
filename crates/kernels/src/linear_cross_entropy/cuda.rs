//! The steps between the products of the output projection on NVIDIA GPUs.

use super::{
    chunks::{Chunk, Losses, Steps},
    kernel::{
        LinearCrossEntropyGather, LinearCrossEntropyGradient, LinearCrossEntropyLoss,
        LinearCrossEntropyScatter,
    },
};
use crate::KernelError;
use tightrope_device::{
    Cuda, View, ViewMut,
    cuda::{Input, Launch, Output},
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

/// Variant of the kernels that copy rows of `x`.
fn copied(cuda: &Cuda, x: View<'_, Cuda>, tokens: usize, hidden: usize) -> [&'static str; 2] {
    let width = cuda.index_width(tokens.saturating_mul(hidden));
    [x.dtype().name(), width.suffix()]
}

impl Steps for Cuda {
    /// The number depends on the vocabulary alone, and so does the order in which `dweight` is
    /// summed.
    fn chunk_rows(&self, rows: usize, vocabulary: usize) -> usize {
        let most = self.limit(MAX_ROWS, MIN_ROWS);
        let chunk = CHUNK_BYTES / (size_of::<f32>() * vocabulary.max(1));
        chunk.clamp(MIN_ROWS, most).min(rows)
    }

    fn stride(vocabulary: usize) -> usize {
        vocabulary.next_multiple_of(ROW_MULTIPLE)
    }

    fn gather(
        &self,
        chunk: Chunk<'_, Self>,
        x: View<'_, Self>,
        rows: ViewMut<'_, Self>,
        hidden: usize,
    ) -> Result<(), KernelError> {
        let variant = copied(self, x, chunk.tokens, hidden);
        let kernel = LinearCrossEntropyGather {
            all: Input::of(x),
            rows: Input::of(chunk.numbers),
            chunk: Output::of(rows),
            hidden: hidden as u64,
        };
        let launch = Launch::linear(chunk.rows.len(), THREADS)?;
        // SAFETY: the check of the arguments proved `x`, whose rows are numbered below `tokens`;
        // the scratch memory has room for the rows of a chunk.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn scatter(
        &self,
        chunk: Chunk<'_, Self>,
        rows: View<'_, Self>,
        x: ViewMut<'_, Self>,
        hidden: usize,
    ) -> Result<(), KernelError> {
        let variant = copied(self, rows, chunk.tokens, hidden);
        let kernel = LinearCrossEntropyScatter {
            chunk: Input::of(rows),
            rows: Input::of(chunk.numbers),
            all: Output::of(x),
            hidden: hidden as u64,
        };
        let launch = Launch::linear(chunk.rows.len(), THREADS)?;
        // SAFETY: the check of the arguments proved `x`, whose rows are numbered below `tokens`;
        // the scratch memory has the rows of the chunk.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn cross_entropy(&self, args: Losses<'_, Self>) -> Result<(), KernelError> {
        let Losses {
            chunk,
            logits,
            stride,
            vocabulary,
            targets,
            softcap,
            weights,
            losses,
            dtype,
        } = args;
        let launch = Launch::linear(chunk.rows.len(), THREADS)?;
        let (rows, targets) = (Input::of(chunk.numbers), Input::of(targets));
        let softcap = softcap.unwrap_or(0.0);
        let losses = Output::of(losses);
        let (vocabulary, stride) = (vocabulary as u64, stride as u64);
        let Some(weights) = weights else {
            let kernel = LinearCrossEntropyLoss {
                logits: Input::of(logits.as_view()),
                rows,
                targets,
                softcap,
                losses,
                vocabulary,
                stride,
            };
            // SAFETY: the logits are rows of `stride`; the check of the arguments proved `targets`
            // and `losses`, and these rows have targets below the vocabulary.
            return Ok(unsafe { self.launch(kernel, &[], launch) }?);
        };
        let kernel = LinearCrossEntropyGradient {
            logits: Output::of(logits),
            rows,
            targets,
            weights: Input::of(weights),
            softcap,
            losses,
            vocabulary,
            stride,
        };
        // SAFETY: the logits are rows of `stride`; the check of the arguments proved `targets`,
        // `losses` and `weights`, and these rows have targets below the vocabulary.
        Ok(unsafe { self.launch(kernel, &[dtype.name()], launch) }?)
    }
}
