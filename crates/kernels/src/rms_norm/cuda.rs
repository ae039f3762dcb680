//! RMSNorm on NVIDIA GPUs.

use super::{
    Backward, Forward, RmsNorm,
    kernel::{RmsNormAddPartials, RmsNormBackward, RmsNormForward},
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DeviceError,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Rows up to here are each shared by one warp, longer ones by eight.
const SHORT: usize = 1024;
/// Most blocks of the backward pass, and so most partial sums of `dweight`. Fixed, so that the
/// result does not depend on the GPU.
const BLOCKS: usize = 512;
/// Shared memory of a block on every supported GPU, for one copy of `dweight`.
const SHARED_BYTES: usize = 99 * 1024;

/// Warps that share a row.
fn warps(dim: usize) -> u32 {
    if dim <= SHORT { 1 } else { THREADS / 32 }
}

impl RmsNorm for Cuda {
    fn rms_norm_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.into_inner();
        let (rows, dim) = (args.rows, args.dim);
        let warps = warps(dim);
        let variant = [
            args.x.dtype().name(),
            self.index_width(rows.saturating_mul(dim)).suffix(),
        ];
        let (add, sum) = match args.residual {
            None => (Input::NONE, Output::NONE),
            Some(residual) => (Input::of(residual.add), Output::of(residual.sum)),
        };
        let kernel = RmsNormForward {
            x: Input::of(args.x),
            add,
            sum,
            weight: Input::of(args.weight),
            offset: f32::from(u8::from(args.plus_one)),
            eps: args.eps,
            y: Output::of(args.y),
            rstd: Output::of(args.rstd),
            rows: rows as u64,
            dim: dim as u64,
            warps,
        };
        let groups = (THREADS / 32 / warps) as usize;
        let launch = Launch::linear(rows.div_ceil(groups), THREADS)?;
        // SAFETY: the check of the arguments proved that every operand has what the kernel touches.
        Ok(unsafe { kernel.launch(self, &variant, launch) }?)
    }

    fn rms_norm_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.into_inner();
        let (rows, dim) = (args.rows, args.dim);
        if rows == 0 {
            return Ok(());
        }
        let warps = warps(dim);
        let groups = (THREADS / 32 / warps) as usize;
        let variant = [
            args.dx.dtype().name(),
            self.index_width(rows.saturating_mul(dim)).suffix(),
        ];
        let rows_per_block = rows.div_ceil(BLOCKS).next_multiple_of(groups);
        let blocks = rows.div_ceil(rows_per_block);
        // A frozen weight needs neither.
        let copies = if args.dweight.is_some() { dim } else { 0 };
        let shared_bytes = groups * copies * size_of::<f32>();
        if shared_bytes > SHARED_BYTES {
            return Err(KernelError::Device(DeviceError::NoKernel {
                operation: "rms_norm_backward",
                variant: format!("a trained weight of {dim} features"),
            }));
        }
        let scratch = self.scratch("rms_norm_partials", blocks * copies * size_of::<f32>())?;
        let mut partials = scratch.hold();
        let kernel = RmsNormBackward {
            dy: Input::of(args.dy),
            x: Input::of(args.x),
            rstd: Input::of(args.rstd),
            weight: Input::of(args.weight),
            offset: f32::from(u8::from(args.plus_one)),
            dx: Output::of(args.dx),
            accumulate: u32::from(args.accumulate),
            partial: match args.dweight {
                Some(_) => partials.output(),
                None => Output::NONE,
            },
            rows: rows as u64,
            dim: dim as u64,
            rows_per_block: rows_per_block as u64,
            warps,
        };
        let launch = Launch::linear(blocks, THREADS)?.shared(shared_bytes);
        // SAFETY: the check of the arguments proved every operand; the partial sums have `dim`
        // elements for each block.
        unsafe { kernel.launch(self, &variant, launch) }?;
        let Some(dweight) = args.dweight else {
            return Ok(());
        };
        let kernel = RmsNormAddPartials {
            partial: partials.input(),
            dweight: Output::of(dweight),
            blocks: blocks as u64,
            dim: dim as u64,
        };
        let launch = Launch::linear(dim.div_ceil(THREADS as usize), THREADS)?;
        // SAFETY: as above; `dweight` has `dim` elements.
        Ok(unsafe { kernel.launch(self, &[], launch) }?)
    }
}
