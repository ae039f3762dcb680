//! Noise on NVIDIA GPUs.

use super::{Add, Noise, kernel::NoiseAdd};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;

impl Noise for Cuda {
    fn noise_add(&self, args: Checked<Add<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let dtype = args.y.dtype();
        let kernel = NoiseAdd {
            y: Output::of(args.y),
            states: Input::of(args.states),
            scales: Input::of(args.scales),
            features: args.features as u64,
        };
        let launch = Launch::linear(args.rows, THREADS)?;
        // SAFETY: the check of the arguments proved the number of rows and features of each
        // operand; the written one is borrowed exclusively.
        Ok(unsafe { self.launch(kernel, &[dtype.name()], launch) }?)
    }
}
