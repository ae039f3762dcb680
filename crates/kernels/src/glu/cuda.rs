//! Gated linear units on NVIDIA GPUs.

use super::{
    Activation, Backward, Forward, Glu,
    kernel::{
        GegluErfBackward, GegluErfForward, GegluTanhBackward, GegluTanhForward, SwigluBackward,
        SwigluForward,
    },
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DType, DeviceError,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Bytes of an operand for each thread.
const VECTOR: usize = 16;

fn launch(elements: usize, dtype: DType) -> Result<Launch, DeviceError> {
    let per_block = THREADS as usize * VECTOR / dtype.size();
    Launch::linear(elements.div_ceil(per_block), THREADS)
}

impl Glu for Cuda {
    fn glu_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.into_inner();
        let (dtype, elements) = (args.gate.dtype(), args.elements as u64);
        let launch = launch(args.elements, dtype)?;
        let variant = [dtype.name(), self.index_width(args.elements).suffix()];
        let (gate, up, y) = (Input::of(args.gate), Input::of(args.up), Output::of(args.y));
        macro_rules! issue {
            ($kernel:ident) => {{
                let kernel = $kernel {
                    gate,
                    up,
                    y,
                    elements,
                };
                // SAFETY: the check of the arguments proved that each has so many elements.
                unsafe { kernel.launch(self, &variant, launch) }?
            }};
        }
        match args.activation {
            Activation::Silu => issue!(SwigluForward),
            Activation::GeluTanh => issue!(GegluTanhForward),
            Activation::GeluErf => issue!(GegluErfForward),
        }
        Ok(())
    }

    fn glu_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.into_inner();
        let (dtype, elements) = (args.gate.dtype(), args.elements as u64);
        let launch = launch(args.elements, dtype)?;
        let variant = [dtype.name(), self.index_width(args.elements).suffix()];
        let (gate, up, dy) = (
            Output::of(args.gate),
            Output::of(args.up),
            Output::of(args.dy),
        );
        macro_rules! issue {
            ($kernel:ident) => {{
                let kernel = $kernel {
                    gate,
                    up,
                    dy,
                    elements,
                };
                // SAFETY: as in the forward pass; the three are apart, being borrowed apart.
                unsafe { kernel.launch(self, &variant, launch) }?
            }};
        }
        match args.activation {
            Activation::Silu => issue!(SwigluBackward),
            Activation::GeluTanh => issue!(GegluTanhBackward),
            Activation::GeluErf => issue!(GegluErfBackward),
        }
        Ok(())
    }
}
