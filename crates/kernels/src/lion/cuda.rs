//! Lion on NVIDIA GPUs.

use super::{Factors, Lion, Update, kernel::LionUpdate};
use crate::{Checked, KernelError, moment};
use tightrope_device::{
    Cuda,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Number of elements per thread.
const VECTOR: usize = 4;

impl Lion for Cuda {
    fn lion_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let elements = args.weight.len();
        let factors = Factors::new(&args.hyperparameters);
        let moment = args.m.dtype();
        let kernel = LionUpdate {
            weight: Output::of(args.weight),
            gradient: Input::of(args.gradient),
            m: Output::of(args.m),
            gradient_scale: factors.gradient,
            keep: factors.keep,
            beta1: factors.beta1,
            blend1: factors.blend1,
            beta2: factors.beta2,
            blend2: factors.blend2,
            rate: factors.rate,
            salt: moment::salt(args.hyperparameters.step),
            elements: elements as u64,
        };
        let variant = [moment.name(), self.index_width(elements).suffix()];
        let launch = Launch::linear(elements.div_ceil(THREADS as usize * VECTOR), THREADS)?;
        // SAFETY: the check of the arguments proved the number of elements of each operand; the
        // two written operands are borrowed exclusively.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }
}
