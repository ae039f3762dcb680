//! RMSNorm on NVIDIA GPUs.

use super::{
    Backward, Forward, RmsNorm,
    kernel::{RmsNormAddPartials, RmsNormBackward, RmsNormForward},
};
use crate::{Checked, KernelError, partials};
use tightrope_device::{
    Cuda, DType, Device, DeviceError,
    cuda::{Input, Launch, Output},
};

/// Number of elements of a row that a thread holds, as in `kernel.cu`.
const HELD: usize = 16;
/// Largest number of threads in a block, and number of threads in a block that processes several
/// rows.
const MOST_THREADS: usize = 512;
const THREADS: usize = 256;
/// Largest number of blocks. It is fixed, so that the order in which `dweight` is summed does not
/// depend on the GPU.
const FORWARD_BLOCKS: usize = 512;
const BACKWARD_BLOCKS: usize = 256;
const SMALL_BLOCKS: usize = 5;

/// Division of rows among threads and blocks.
struct Plan {
    /// Number of threads that share a row: a power of two up to 32, or a multiple of 32.
    threads: usize,
    /// Number of rows that a block processes at once.
    groups: usize,
    rows_per_block: usize,
    blocks: usize,
}

impl Plan {
    fn new(rows: usize, dim: usize, most_blocks: usize) -> Self {
        let threads = match dim.div_ceil(HELD).max(1) {
            lanes @ ..=32 => lanes.next_power_of_two(),
            threads => threads.next_multiple_of(32).min(MOST_THREADS),
        };
        let groups = (THREADS / threads).max(1);
        let rows_per_block = rows.div_ceil(most_blocks).max(1).next_multiple_of(groups);
        Self {
            threads,
            groups,
            rows_per_block,
            blocks: rows.div_ceil(rows_per_block),
        }
    }

    fn launch(&self) -> Result<Launch, DeviceError> {
        Launch::linear(self.blocks, (self.groups * self.threads) as u32)
    }
}

impl RmsNorm for Cuda {
    fn rms_norm_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (rows, dim) = (args.rows, args.dim);
        let plan = Plan::new(rows, dim, self.limit(FORWARD_BLOCKS, SMALL_BLOCKS));
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
            rows_per_block: plan.rows_per_block as u64,
            threads: plan.threads as u32,
        };
        let launch = plan.launch()?;
        // SAFETY: the check of the arguments proved that every operand has what the kernel touches.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn rms_norm_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (rows, dim) = (args.rows, args.dim);
        if rows == 0 {
            return Ok(());
        }
        let plan = Plan::new(rows, dim, self.limit(BACKWARD_BLOCKS, SMALL_BLOCKS));
        let variant = [
            args.dx.dtype().name(),
            self.index_width(rows.saturating_mul(dim)).suffix(),
        ];
        // A frozen weight needs no sums.
        let sums = if args.dweight.is_some() { dim } else { 0 };
        let copies = if plan.groups > 1 { plan.groups } else { 0 };
        let shared_bytes = copies * sums * size_of::<f32>();
        let mut partials = self.scratch(DType::F32, &[plan.blocks, sums])?;
        let kernel = RmsNormBackward {
            dy: Input::of(args.dy),
            x: Input::of(args.x),
            rstd: Input::of(args.rstd),
            weight: Input::of(args.weight),
            offset: f32::from(u8::from(args.plus_one)),
            dx: Output::of(args.dx),
            accumulate: u32::from(args.accumulate),
            partial: match args.dweight {
                Some(_) => Output::of(partials.view_mut()),
                None => Output::NONE,
            },
            rows: rows as u64,
            dim: dim as u64,
            rows_per_block: plan.rows_per_block as u64,
            threads: plan.threads as u32,
        };
        let launch = plan.launch()?.shared(shared_bytes);
        // SAFETY: the check of the arguments proved every operand; the partial sums have `dim`
        // elements for each block.
        unsafe { self.launch(kernel, &variant, launch) }?;
        let Some(dweight) = args.dweight else {
            return Ok(());
        };
        let kernel = RmsNormAddPartials {
            partial: Input::of(partials.view()),
            dweight: Output::of(dweight),
            blocks: plan.blocks as u64,
            dim: dim as u64,
        };
        let launch = partials::launch(dim)?;
        // SAFETY: the partial sums have `dim` elements for each block, and `dweight` has `dim`
        // elements.
        Ok(unsafe { self.launch(kernel, &[], launch) }?)
    }
}
