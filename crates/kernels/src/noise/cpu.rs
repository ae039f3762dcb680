//! Noise on the CPU.

use super::{Add, Noise};
use crate::{
    Checked, KernelError,
    cpu::{block_rows, float::Activation},
};
use half::bf16;
use tightrope_device::{Cpu, DType, rows, vectorize};

impl Noise for Cpu {
    fn noise_add(&self, args: Checked<Add<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.y.dtype() {
            DType::BF16 => add_to_rows::<bf16>(self, args),
            _ => add_to_rows::<f32>(self, args),
        }
    }
}

fn add_to_rows<T: Activation>(cpu: &Cpu, args: Add<'_, Cpu>) -> Result<(), KernelError> {
    let (count, features) = (args.rows, args.features);
    if count * features == 0 {
        return Ok(());
    }
    let parts = (
        rows(&mut args.y.into_slice::<T>()?[..count * features], features),
        rows(&args.states.as_slice::<u32>()?[..2 * count], 2),
        rows(&args.scales.as_slice::<f32>()?[..count], 1),
    );
    cpu.for_each_block(
        count,
        block_rows(features),
        parts,
        |_, _, (y, states, scales)| {
            let states = states.slice.as_chunks::<2>().0.iter();
            let each = y.slice.chunks_mut(features).zip(states).zip(scales.slice);
            for ((y, &[low, high]), &scale) in each {
                add(y, low, high, scale);
            }
        },
    );
    Ok(())
}

vectorize! {
    fn add<T: Activation>(y: &mut [T], low: u32, high: u32, scale: f32) {
        for (index, y) in (0u32..).zip(y) {
            let mut h = index.wrapping_mul(0x9e37_79b9).wrapping_add(low);
            h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
            h ^= high;
            h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
            h ^= h >> 16;
            // 24 bits, which f32 holds exactly.
            let uniform = ((h >> 8) as f32).mul_add(1.0 / (1 << 23) as f32, -1.0);
            *y = T::rounded(scale.mul_add(uniform, y.get()));
        }
    }
}
