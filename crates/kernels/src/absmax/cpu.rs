//! Decodes 8-bit weights on the CPU, row by row.

use super::{Absmax, Dequantize};
use crate::{
    Checked, KernelError,
    cpu::{block_rows, float::Activation},
};
use half::bf16;
use tightrope_device::{Cpu, DType, rows, vectorize};

impl Absmax for Cpu {
    fn absmax_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.y.dtype() {
            DType::BF16 => dequantize::<bf16>(self, args),
            _ => dequantize::<f32>(self, args),
        }
    }
}

fn dequantize<T: Activation>(cpu: &Cpu, args: Dequantize<'_, Cpu>) -> Result<(), KernelError> {
    let (count, columns) = (args.rows, args.columns);
    let y = &mut args.y.into_slice::<T>()?[..count * columns];
    let codes = &args.codes.as_slice::<u8>()?[..count * columns];
    let absmax = &args.absmax.as_slice::<f32>()?[..count];
    let parts = (rows(codes, columns), rows(absmax, 1), rows(y, columns));
    cpu.for_each_block(
        count,
        block_rows(columns),
        parts,
        |_, _, (codes, absmax, y)| {
            let width = columns.max(1);
            let codes = codes.slice.chunks_exact(width).zip(absmax.slice);
            for (y, (codes, absmax)) in y.slice.chunks_exact_mut(width).zip(codes) {
                scaled(y, codes, absmax / 127.0);
            }
        },
    );
    Ok(())
}

vectorize! {
    fn scaled<T: Activation>(y: &mut [T], codes: &[u8], step: f32) {
        for (y, &code) in y.iter_mut().zip(codes) {
            *y = T::rounded(f32::from(code as i8) * step);
        }
    }
}
