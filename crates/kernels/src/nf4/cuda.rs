//! NF4 on NVIDIA GPUs.

use super::{Dequantize, Nf4, Scales, kernel::Nf4Dequantize};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Number of bytes of `y` for each thread.
const BYTES: usize = 4 * 16;

impl Nf4 for Cuda {
    fn nf4_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let Dequantize {
            weight,
            y,
            elements,
        } = args;
        let dtype = y.dtype();
        let variant = [dtype.name(), self.index_width(elements).suffix()];
        let per_block = THREADS as usize * BYTES / dtype.size();
        let launch = Launch::linear(elements.div_ceil(per_block), THREADS)?;
        let (scales, scale_codes, offset) = match weight.scales {
            Scales::Plain(scales) => (Input::of(scales), Input::NONE, 0.0),
            Scales::Quantized {
                codes,
                absmax,
                offset,
            } => (Input::of(absmax), Input::of(codes), offset),
        };
        let kernel = Nf4Dequantize {
            codes: Input::of(weight.codes),
            scales,
            scale_codes,
            offset,
            y: Output::of(y),
            elements: elements as u64,
        };
        // SAFETY: the check of the arguments proved every operand.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }
}
