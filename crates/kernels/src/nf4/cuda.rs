//! NF4 on NVIDIA GPUs.

use super::{Dequantize, Nf4, Scales, Weight, kernel::Nf4Dequantize};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DType,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Bytes of `y` for each thread.
const BYTES: usize = 4 * 16;

impl Nf4 for Cuda {
    fn nf4_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError> {
        let args = args.into_inner();
        let dtype = args.y.dtype();
        // SAFETY: the check of the arguments proved every operand.
        unsafe { dequantize(self, args.weight, Output::of(args.y), dtype, args.elements) }
    }
}

/// Writes `elements` of type `dtype` to `y`.
///
/// # Safety
/// [`Weight::check`] has passed for `elements`, and `y` has room for them.
pub(crate) unsafe fn dequantize(
    cuda: &Cuda,
    weight: Weight<'_, Cuda>,
    y: Output<'_>,
    dtype: DType,
    elements: usize,
) -> Result<(), KernelError> {
    let variant = [dtype.name(), cuda.index_width(elements).suffix()];
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
        y,
        elements: elements as u64,
    };
    // SAFETY: as the caller says.
    Ok(unsafe { kernel.launch(cuda, &variant, launch) }?)
}
