//! What DoRA needs besides products, on NVIDIA GPUs.

use super::{
    Dora, RowNorms, ScaleColumns, ScaleColumnsBackward,
    kernel::{DoraAddPartials, DoraRowNorms, DoraScaleBackward, DoraScaleColumns},
};
use crate::{Checked, KernelError, partials, product::Start};
use tightrope_device::{
    Cuda, DType, Device,
    cuda::{Input, Launch, Output, vector_width},
};

const THREADS: u32 = 256;
/// Number of rows in a partial sum of columns. It is fixed, so that the result does not depend on
/// the GPU.
const RUN: usize = 256;

impl Dora for Cuda {
    fn scale_columns(&self, args: Checked<ScaleColumns<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let bias = match args.start {
            Start::Bias(bias) => Input::of(bias),
            Start::Zero | Start::Result => Input::NONE,
        };
        let width = self.index_width(args.rows.saturating_mul(args.columns));
        let variant = [args.z.dtype().name(), width.suffix()];
        let kernel = DoraScaleColumns {
            z: Input::of(args.z),
            gain: args.gain.map_or(Input::NONE, Input::of),
            bias,
            alpha: args.alpha,
            adds: u32::from(matches!(args.start, Start::Result)),
            y: Output::of(args.y),
            columns: args.columns as u64,
        };
        let launch = Launch::linear(args.rows, THREADS)?;
        // SAFETY: the check of the arguments proved that every operand has what the kernel touches.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn scale_columns_backward(
        &self,
        args: Checked<ScaleColumnsBackward<'_, Self>>,
    ) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (rows, columns) = (args.rows, args.columns);
        let dtype = args.dy.dtype();
        let runs = rows.div_ceil(RUN);
        let mut partial = self.scratch(DType::F32, &[runs, columns])?;
        let kernel = DoraScaleBackward {
            dy: Input::of(args.dy),
            z: Input::of(args.z),
            gain: Input::of(args.gain),
            norm: Input::of(args.norm),
            dz: Output::of(args.dz),
            partial: Output::of(partial.view_mut()),
            count: rows as u64,
            columns: columns as u64,
            run: RUN as u64,
        };
        let each = vector_width(dtype, &[columns]);
        let launch = Launch::linear(runs, THREADS)?;
        let [x, ..] = launch.grid;
        let [y, ..] = Launch::linear(columns.div_ceil(32 * each), THREADS)?.grid;
        let launch = Launch {
            grid: [x, y, 1],
            ..launch
        };
        let width = self.index_width(rows.saturating_mul(columns));
        // SAFETY: the check of the arguments proved every operand; the scratch memory has `columns`
        // sums for each run.
        unsafe { self.launch(kernel, &[dtype.name(), width.suffix()], launch) }?;
        let kernel = DoraAddPartials {
            partial: Input::of(partial.view()),
            sums: Output::of(args.dmagnitude),
            runs: runs as u64,
            columns: columns as u64,
        };
        let launch = partials::launch(columns)?;
        // SAFETY: the scratch memory has `columns` sums for each run, and `dmagnitude` has
        // `columns` elements.
        Ok(unsafe { self.launch(kernel, &[], launch) }?)
    }

    fn row_norms(&self, args: Checked<RowNorms<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let kernel = DoraRowNorms {
            squares: Input::of(args.squares),
            b: Input::of(args.b),
            u: Input::of(args.u),
            c: Input::of(args.c),
            magnitude: Input::of(args.magnitude),
            scale: args.scale,
            norm: Output::of(args.norm),
            gain: Output::of(args.gain),
            outputs: args.outputs as u64,
            rank: args.rank as u64,
        };
        let launch = Launch::linear(args.outputs.div_ceil(THREADS as usize), THREADS)?;
        // SAFETY: the check of the arguments proved that every operand has what the kernel touches.
        Ok(unsafe { self.launch(kernel, &[], launch) }?)
    }
}
