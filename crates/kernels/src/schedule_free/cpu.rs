//! Schedule-free AdamW on the CPU: one pass over all operands.

use super::{Average, Factors, ScheduleFree, Update, average_weight};
use crate::{Checked, KernelError, cpu::block_rows};
use tightrope_device::{Cpu, rows, vectorize};

impl ScheduleFree for Cpu {
    fn schedule_free_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let factors = Factors::new(&args.hyperparameters);
        let elements = args.y.len();
        let parts = (
            rows(args.y.into_slice()?, 1),
            rows(&args.gradient.as_slice::<f32>()?[..elements], 1),
            rows(&mut args.z.into_slice::<f32>()?[..elements], 1),
            rows(&mut args.v.into_slice::<f32>()?[..elements], 1),
        );
        self.for_each_block(elements, block_rows(1), parts, |_, _, (y, g, z, v)| {
            update(y.slice, g.slice, z.slice, v.slice, factors);
        });
        Ok(())
    }

    fn schedule_free_average(&self, args: Checked<Average<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let weight = average_weight(args.beta1);
        let elements = args.y.len();
        let parts = (
            rows(args.y.into_slice()?, 1),
            rows(&args.z.as_slice::<f32>()?[..elements], 1),
        );
        self.for_each_block(elements, block_rows(1), parts, |_, _, (y, z)| {
            average(y.slice, z.slice, weight);
        });
        Ok(())
    }
}

vectorize! {
    fn update(y: &mut [f32], gradient: &[f32], z: &mut [f32], v: &mut [f32], f: Factors) {
        for (((y, &g), z), v) in y.iter_mut().zip(gradient).zip(z).zip(v) {
            f.step(g, y, z, v);
        }
    }

    fn average(y: &mut [f32], z: &[f32], weight: f32) {
        for (y, &z) in y.iter_mut().zip(z) {
            *y = weight.mul_add(z - *y, *y);
        }
    }
}
