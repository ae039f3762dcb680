//! The rotation on NVIDIA GPUs.

use super::{Pairing, Rope, Rotate, kernel::RopeRotate};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, IndexWidth,
    cuda::{Input, Launch, Output, vector_width},
};

const THREADS: u32 = 256;
/// Largest number of heads that a thread rotates.
const HEADS: usize = 4;

impl Rope for Cuda {
    fn rope(&self, args: Checked<Rotate<'_, Self>>) -> Result<(), KernelError> {
        let width = self.index_width(args.largest_offset());
        launch(self, args.on(self)?, width)
    }

    fn rope_with_width(
        &self,
        args: Checked<Rotate<'_, Self>>,
        width: IndexWidth,
    ) -> Result<(), KernelError> {
        args.fits(width)?;
        launch(self, args.on(self)?, width)
    }
}

/// Launches with checked arguments.
fn launch(cuda: &Cuda, args: Rotate<'_, Cuda>, width: IndexWidth) -> Result<(), KernelError> {
    let dtype = args.q.tensor.dtype();
    let pairs = args.rotary_dim / 2;
    let steps = [pairs, args.head_dim, args.q.row_stride, args.k.row_stride];
    let pairs_per_thread = vector_width(dtype, &steps);
    let groups = (args.q.heads + args.k.heads).div_ceil(HEADS);
    let threads = args.tokens * groups * (pairs / pairs_per_thread);
    let kernel = RopeRotate {
        q: Output::of(args.q.tensor),
        k: Output::of(args.k.tensor),
        cos: Input::of(args.cos),
        sin: Input::of(args.sin),
        sign: args.direction.sign(),
        interleaved: u32::from(args.pairing == Pairing::Interleaved),
        tokens: args.tokens as u64,
        q_heads: args.q.heads as u64,
        k_heads: args.k.heads as u64,
        q_stride: args.q.row_stride as u64,
        k_stride: args.k.row_stride as u64,
        head_dim: args.head_dim as u64,
        pairs: pairs as u64,
        groups: groups as u64,
        pairs_per_thread: pairs_per_thread as u64,
    };
    let launch = Launch::linear(threads.div_ceil(THREADS as usize), THREADS)?;
    // SAFETY: the check of the arguments proved that every offset lies inside its buffer; `q` and
    // `k` are borrowed exclusively and do not overlap.
    Ok(unsafe { cuda.launch(kernel, &[dtype.name(), width.suffix()], launch) }?)
}
