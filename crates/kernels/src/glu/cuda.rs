//! Gated linear units on NVIDIA GPUs.

use super::{
    Activation, Backward, Forward, Glu,
    kernel::{GluBackward, GluForward},
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DType, DeviceError,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Number of bytes of an operand for each thread.
const VECTOR: usize = 16;

impl Activation {
    /// Name in kernel symbols.
    fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::GeluErf => "gelu_erf",
        }
    }
}

/// Chooses the kernel and the number of threads.
fn plan(
    cuda: &Cuda,
    activation: Activation,
    dtype: DType,
    elements: usize,
) -> Result<([&'static str; 3], Launch), DeviceError> {
    let width = cuda.index_width(elements).suffix();
    let per_block = THREADS as usize * VECTOR / dtype.size();
    let launch = Launch::linear(elements.div_ceil(per_block), THREADS)?;
    Ok(([activation.name(), dtype.name(), width], launch))
}

impl Glu for Cuda {
    fn glu_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (variant, launch) = plan(self, args.activation, args.gate.dtype(), args.elements)?;
        let kernel = GluForward {
            gate: Input::of(args.gate),
            up: Input::of(args.up),
            y: Output::of(args.y),
            elements: args.elements as u64,
        };
        // SAFETY: the check of the arguments proved that each operand has this many elements.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn glu_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (variant, launch) = plan(self, args.activation, args.gate.dtype(), args.elements)?;
        let kernel = GluBackward {
            gate: Output::of(args.gate),
            up: Output::of(args.up),
            dy: Output::of(args.dy),
            elements: args.elements as u64,
        };
        // SAFETY: the check of the arguments proved that each operand has this many elements; the
        // three are borrowed exclusively and do not overlap.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }
}
