//! Schedule-free AdamW on NVIDIA GPUs.

use super::{
    Average, Factors, ScheduleFree, Update, average_weight,
    kernel::{ScheduleFreeAverage, ScheduleFreeUpdate},
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DeviceError,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Number of elements per thread.
const VECTOR: usize = 4;

fn launch(elements: usize) -> Result<Launch, DeviceError> {
    Launch::linear(elements.div_ceil(THREADS as usize * VECTOR), THREADS)
}

impl ScheduleFree for Cuda {
    fn schedule_free_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let elements = args.y.len();
        let factors = Factors::new(&args.hyperparameters);
        let kernel = ScheduleFreeUpdate {
            y: Output::of(args.y),
            gradient: Input::of(args.gradient),
            z: Output::of(args.z),
            v: Output::of(args.v),
            gradient_scale: factors.gradient,
            beta2: factors.beta2,
            blend2: factors.blend2,
            root: factors.root,
            eps: factors.eps,
            decay: factors.decay,
            average: factors.average,
            y_rate: factors.y_rate,
            z_rate: factors.z_rate,
            elements: elements as u64,
        };
        let variant = [self.index_width(elements).suffix()];
        // SAFETY: the check of the arguments proved the number of elements of each operand; the
        // three written operands are borrowed exclusively.
        Ok(unsafe { self.launch(kernel, &variant, launch(elements)?) }?)
    }

    fn schedule_free_average(&self, args: Checked<Average<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let elements = args.y.len();
        let kernel = ScheduleFreeAverage {
            y: Output::of(args.y),
            z: Input::of(args.z),
            weight: average_weight(args.beta1),
            elements: elements as u64,
        };
        let variant = [self.index_width(elements).suffix()];
        // SAFETY: the check of the arguments proved the number of elements of both operands; the
        // written one is borrowed exclusively.
        Ok(unsafe { self.launch(kernel, &variant, launch(elements)?) }?)
    }
}
