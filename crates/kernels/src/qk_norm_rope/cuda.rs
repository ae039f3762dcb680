//! Norm and rotation of heads on NVIDIA GPUs.

use super::{
    Backward, Forward, QkNormRope,
    kernel::{QkNormRopeAddPartials, QkNormRopeBackward, QkNormRopeForward},
};
use crate::{Checked, KernelError, partials};
use tightrope_device::{
    Cuda, DType, Device, DeviceError,
    cuda::{Input, Launch, Output, vector_width},
};

const THREADS: u32 = 256;
/// Largest number of heads of a token that the same lanes take in the forward pass, as in
/// `kernel.cu`.
const HEADS: usize = 4;
/// Approximate largest number of blocks in the backward pass, and so of partial sums of both
/// `dweight`. It is fixed, so that the result does not depend on the GPU.
const BLOCKS: usize = 512;
const SMALL_BLOCKS: usize = 4;
/// Shared memory of a block on every supported GPU, for one copy of `dweight` per head.
const SHARED_BYTES: usize = 99 * 1024;

/// Number of lanes that share a head.
fn lanes(dtype: DType, head_dim: usize, pairs: usize) -> u32 {
    let step = vector_width(dtype, &[head_dim, pairs]);
    let steps = pairs.max(head_dim - 2 * pairs).div_ceil(step);
    let mut sizes = [1, 2, 4, 8, 16].into_iter();
    sizes.find(|&lanes| lanes as usize >= steps).unwrap_or(32)
}

/// Variant in kernel symbols.
fn variant(
    cuda: &Cuda,
    dtype: DType,
    tokens: usize,
    heads: usize,
    head_dim: usize,
) -> [&'static str; 2] {
    let largest = tokens.saturating_mul(heads).saturating_mul(head_dim);
    [dtype.name(), cuda.index_width(largest).suffix()]
}

impl QkNormRope for Cuda {
    fn qk_norm_rope_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let Forward { q, k, .. } = args;
        let (dtype, tokens, dim) = (q.x.dtype(), args.tokens, args.head_dim);
        let (heads, pairs) = (q.heads + k.heads, args.rotary_dim / 2);
        let lanes = lanes(dtype, dim, pairs);
        let kernel = QkNormRopeForward {
            q: Input::of(q.x),
            k: Input::of(k.x),
            q_weight: Input::of(q.weight),
            k_weight: Input::of(k.weight),
            offset: f32::from(u8::from(args.plus_one)),
            eps: args.eps,
            cos: Input::of(args.cos),
            sin: Input::of(args.sin),
            q_rotated: Output::of(q.y),
            k_rotated: Output::of(k.y),
            q_rstd: Output::of(q.rstd),
            k_rstd: Output::of(k.rstd),
            tokens: tokens as u64,
            q_heads: q.heads as u64,
            k_heads: k.heads as u64,
            dim: dim as u64,
            pairs: pairs as u64,
            lanes,
        };
        let groups = (THREADS / lanes) as usize;
        let parts = q.heads.div_ceil(HEADS) + k.heads.div_ceil(HEADS);
        let launch = Launch::linear((tokens * parts).div_ceil(groups), THREADS)?;
        let variant = variant(self, dtype, tokens, heads, dim);
        // SAFETY: the check of the arguments proved that every operand has what the kernel touches.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn qk_norm_rope_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let Backward { q, k, .. } = args;
        let (dtype, tokens, dim) = (q.dx.dtype(), args.tokens, args.head_dim);
        let (heads, pairs) = (q.heads + k.heads, args.rotary_dim / 2);
        let lanes = lanes(dtype, dim, pairs);
        let groups = (THREADS / lanes) as usize;
        let rows_per_block = (tokens * heads)
            .div_ceil(self.limit(BLOCKS, SMALL_BLOCKS))
            .max(1)
            .next_multiple_of(groups);
        let [q_blocks, k_blocks] =
            [q.heads, k.heads].map(|heads| (tokens * heads).div_ceil(rows_per_block));
        let blocks = q_blocks + k_blocks;
        // Frozen weights need no partial sums.
        let is_trained = q.dweight.is_some() || k.dweight.is_some();
        let copies = if is_trained { dim } else { 0 };
        let shared_bytes = groups * copies * size_of::<f32>();
        if shared_bytes > SHARED_BYTES {
            return Err(KernelError::Device(DeviceError::NoKernel {
                operation: "qk_norm_rope_backward",
                variant: format!("a trained weight of {dim} features"),
            }));
        }
        let mut partials = self.scratch(DType::F32, &[blocks, copies])?;
        let kernel = QkNormRopeBackward {
            q_dx: Output::of(q.dx),
            k_dx: Output::of(k.dx),
            q: Input::of(q.x),
            k: Input::of(k.x),
            q_rstd: Input::of(q.rstd),
            k_rstd: Input::of(k.rstd),
            q_weight: Input::of(q.weight),
            k_weight: Input::of(k.weight),
            offset: f32::from(u8::from(args.plus_one)),
            cos: Input::of(args.cos),
            sin: Input::of(args.sin),
            partial: if is_trained {
                Output::of(partials.view_mut())
            } else {
                Output::NONE
            },
            tokens: tokens as u64,
            q_heads: q.heads as u64,
            k_heads: k.heads as u64,
            dim: dim as u64,
            pairs: pairs as u64,
            q_blocks: q_blocks as u64,
            rows_per_block: rows_per_block as u64,
            lanes,
        };
        let launch = Launch::linear(blocks, THREADS)?.shared(shared_bytes);
        let variant = variant(self, dtype, tokens, heads, dim);
        // SAFETY: the check of the arguments proved every operand; the partial sums have `dim`
        // elements for each block.
        unsafe { self.launch(kernel, &variant, launch) }?;
        if !is_trained || blocks == 0 {
            return Ok(());
        }
        let kernel = QkNormRopeAddPartials {
            partial: Input::of(partials.view()),
            q_dweight: q.dweight.map_or(Output::NONE, Output::of),
            k_dweight: k.dweight.map_or(Output::NONE, Output::of),
            q_blocks: q_blocks as u64,
            k_blocks: k_blocks as u64,
            dim: dim as u64,
        };
        let mut launch = partials::launch(dim)?;
        launch.grid[1] = 2;
        // SAFETY: the partial sums have `dim` elements for each block, and each `dweight` has `dim`
        // elements.
        Ok(unsafe { self.launch(kernel, &[], launch) }?)
    }
}
