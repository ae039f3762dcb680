//! AdamW with 8-bit moments on NVIDIA GPUs.

use super::{AdamW8bit, BLOCK, Update, kernel::Adamw8bitUpdate};
use crate::{Checked, KernelError, adamw::Factors};
use tightrope_device::{
    Cuda,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
/// Number of blocks of elements that a block of threads updates at once, one per warp.
const AT_ONCE: usize = THREADS as usize / 32;
/// Largest number of blocks of threads, because each block builds the maps anew.
const BLOCKS: usize = 2048;

impl AdamW8bit for Cuda {
    fn adamw_8bit_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let elements = args.weight.len();
        let factors = Factors::new(&args.hyperparameters);
        let kernel = Adamw8bitUpdate {
            weight: Output::of(args.weight),
            gradient: Input::of(args.gradient),
            m_codes: Output::of(args.m.codes),
            m_absmax: Output::of(args.m.absmax),
            v_codes: Output::of(args.v.codes),
            v_absmax: Output::of(args.v.absmax),
            gradient_scale: factors.gradient,
            keep: factors.keep,
            blend1: factors.blend1,
            beta2: factors.beta2,
            blend2: factors.blend2,
            root: factors.root,
            eps: factors.eps,
            rate: factors.rate,
            elements: elements as u64,
        };
        let variant = [self.index_width(elements).suffix()];
        let blocks = elements.div_ceil(BLOCK).div_ceil(AT_ONCE).min(BLOCKS);
        let launch = Launch::linear(blocks, THREADS)?;
        // SAFETY: the check of the arguments proved the number of elements or blocks of each
        // operand; the written operands are borrowed exclusively.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }
}
