//! Decodes 8-bit weights on NVIDIA GPUs.

use super::{Absmax, Dequantize, kernel::AbsmaxDequantize};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda,
    cuda::{Input, Launch, Output, vector_width},
};

const THREADS: u32 = 256;
/// Number of pieces for each thread; a piece is 16 bytes or one element.
const PIECES: usize = 4;

impl Absmax for Cuda {
    fn absmax_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let elements = args.rows * args.columns;
        let dtype = args.y.dtype();
        let variant = [dtype.name(), self.index_width(elements).suffix()];
        let piece = vector_width(dtype, &[args.columns]);
        let blocks = elements.div_ceil(THREADS as usize * PIECES * piece);
        let launch = Launch::linear(blocks, THREADS)?;
        let kernel = AbsmaxDequantize {
            codes: Input::of(args.codes),
            absmax: Input::of(args.absmax),
            y: Output::of(args.y),
            rows: args.rows as u64,
            columns: args.columns as u64,
        };
        // SAFETY: the check of the arguments proved every operand.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }
}
