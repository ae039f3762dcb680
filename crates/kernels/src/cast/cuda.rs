//! Launches the conversion.

use super::kernel;
use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{
    Cuda, View, ViewMut,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;

/// Overwrites the first elements of `to` with those of `from`, rounded to nearest, ties to even. It
/// converts f32, bf16 or f16, the types of weights in files, to another type of f32 and bf16, the
/// types of products.
#[derive(Debug)]
pub struct Cast<'a> {
    /// Elements to read.
    pub from: View<'a, Cuda>,
    /// Elements to write.
    pub to: ViewMut<'a, Cuda>,
    /// Number of elements.
    pub elements: usize,
}

impl Check for Cast<'_> {
    type Device = Cuda;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, Cuda>) -> Result<(), KernelError> {
        let dtype = operands.float("from", self.from)?;
        operands.at_least("from", self.from, dtype, &[self.elements])?;
        let dtype = operands.activation("to", self.to.as_view())?;
        operands.at_least("to", self.to.as_view(), dtype, &[self.elements])
    }
}

/// Issues the conversion.
pub fn cast(cuda: &Cuda, args: Checked<Cast<'_>>) -> Result<(), KernelError> {
    let Cast { from, to, elements } = args.on(cuda)?;
    let variant = [from.dtype().name(), to.dtype().name()];
    // A thread converts 16 bytes of the wider type.
    let each = 16 / from.dtype().size().max(to.dtype().size());
    let blocks = elements.div_ceil(THREADS as usize * each);
    let launch = Launch::linear(blocks, THREADS)?;
    let kernel = kernel::Cast {
        from: Input::of(from),
        to: Output::of(to),
        elements: elements as u64,
    };
    // SAFETY: the check of the arguments proved that both have this many elements.
    Ok(unsafe { cuda.launch(kernel, &variant, launch) }?)
}
