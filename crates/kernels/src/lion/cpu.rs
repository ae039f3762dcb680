//! Lion on the CPU: one pass over the weight, the gradient and the momentum.

use super::{Factors, Lion, Update};
use crate::{
    Checked, KernelError,
    cpu::block_rows,
    moment::{self, Moment, random_bits},
};
use half::bf16;
use tightrope_device::{Cpu, DType, rows, vectorize};

impl Lion for Cpu {
    fn lion_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.m.dtype() {
            DType::BF16 => with_moment::<bf16>(self, args),
            _ => with_moment::<f32>(self, args),
        }
    }
}

fn with_moment<T: Moment>(cpu: &Cpu, args: Update<'_, Cpu>) -> Result<(), KernelError> {
    let factors = Factors::new(&args.hyperparameters);
    let salt = moment::salt(args.hyperparameters.step);
    let elements = args.weight.len();
    let parts = (
        rows(args.weight.into_slice()?, 1),
        rows(&args.gradient.as_slice::<f32>()?[..elements], 1),
        rows(&mut args.m.into_slice::<T>()?[..elements], 1),
    );
    cpu.for_each_block(
        elements,
        block_rows(1),
        parts,
        |first, _, (weight, g, m)| {
            update(weight.slice, g.slice, m.slice, factors, salt, first as u64);
        },
    );
    Ok(())
}

vectorize! {
    fn update<T: Moment>(
        weight: &mut [f32],
        gradient: &[f32],
        m: &mut [T],
        f: Factors,
        salt: u32,
        first: u64,
    ) {
        let elements = weight.iter_mut().zip(gradient).zip(m).zip(first..);
        for (((weight, &g), m), element) in elements {
            let mut now = m.get();
            f.step(g, weight, &mut now);
            m.store(now, random_bits(salt, element));
        }
    }
}
