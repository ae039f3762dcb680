//! AdamW on the CPU: one pass over the weight, the gradient and both moments.

use super::{AdamW, Factors, Update};
use crate::{
    Checked, KernelError,
    cpu::block_rows,
    moment::{self, Moment, random_bits},
};
use half::bf16;
use tightrope_device::{Cpu, DType, rows, vectorize};

impl AdamW for Cpu {
    fn adamw_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.m.dtype() {
            DType::BF16 => with_moments::<bf16>(self, args),
            _ => with_moments::<f32>(self, args),
        }
    }
}

fn with_moments<T: Moment>(cpu: &Cpu, args: Update<'_, Cpu>) -> Result<(), KernelError> {
    let factors = Factors::new(&args.hyperparameters);
    let salt = moment::salt(args.hyperparameters.step);
    let elements = args.weight.len();
    let parts = (
        rows(args.weight.into_slice()?, 1),
        rows(&args.gradient.as_slice::<f32>()?[..elements], 1),
        rows(&mut args.m.into_slice::<T>()?[..elements], 1),
        rows(&mut args.v.into_slice::<T>()?[..elements], 1),
    );
    cpu.for_each_block(
        elements,
        block_rows(1),
        parts,
        |first, _, (weight, g, m, v)| {
            let first = first as u64;
            update(
                weight.slice,
                g.slice,
                m.slice,
                v.slice,
                factors,
                salt,
                first,
            );
        },
    );
    Ok(())
}

vectorize! {
    fn update<T: Moment>(
        weight: &mut [f32],
        gradient: &[f32],
        m: &mut [T],
        v: &mut [T],
        f: Factors,
        salt: u32,
        first: u64,
    ) {
        let elements = weight.iter_mut().zip(gradient).zip(m.iter_mut().zip(v)).zip(first..);
        for (((weight, &g), (m, v)), element) in elements {
            let (mut m_now, mut v_now) = (m.get(), v.get());
            f.step(g, weight, &mut m_now, &mut v_now);
            let random = random_bits(salt, element);
            m.store(m_now, random);
            v.store(v_now, random >> 16);
        }
    }
}
