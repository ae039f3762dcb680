//! AdamW on the CPU: one pass over the weight, the gradient and both moments.

use super::{AdamW, Factors, Update};
use crate::{Checked, KernelError, cpu::block_rows};
use tightrope_device::{Cpu, rows, vectorize};

impl AdamW for Cpu {
    fn adamw_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let factors = Factors::new(&args.hyperparameters);
        let elements = args.weight.len();
        let parts = (
            rows(args.weight.into_slice()?, 1),
            rows(&args.gradient.as_slice::<f32>()?[..elements], 1),
            rows(&mut args.m.into_slice::<f32>()?[..elements], 1),
            rows(&mut args.v.into_slice::<f32>()?[..elements], 1),
        );
        self.for_each_block(elements, block_rows(1), parts, |_, _, (weight, g, m, v)| {
            update(weight.slice, g.slice, m.slice, v.slice, factors);
        });
        Ok(())
    }
}

vectorize! {
    fn update(weight: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((weight, &g), m), v) in weight.iter_mut().zip(gradient).zip(m).zip(v) {
            f.step(g, weight, m, v);
        }
    }
}
