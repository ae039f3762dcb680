//! What DoRA needs besides products, on the CPU.

use super::{Dora, RowNorms, ScaleColumns, ScaleColumnsBackward};
use crate::{
    Checked, KernelError,
    cpu::{block_rows, float::Activation},
    product::Start,
    rms_norm::cpu::differentiate_rows,
};
use half::bf16;
use tightrope_device::{Cpu, DType, rows, vectorize};

impl Dora for Cpu {
    fn scale_columns(&self, args: Checked<ScaleColumns<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.z.dtype() {
            DType::BF16 => scale_columns::<bf16>(self, args),
            _ => scale_columns::<f32>(self, args),
        }
    }

    fn scale_columns_backward(
        &self,
        args: Checked<ScaleColumnsBackward<'_, Self>>,
    ) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.z.dtype() {
            DType::BF16 => scale_columns_backward::<bf16>(self, args),
            _ => scale_columns_backward::<f32>(self, args),
        }
    }

    fn row_norms(&self, args: Checked<RowNorms<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (outputs, rank) = (args.outputs, args.rank);
        let (squares, b) = (args.squares.as_slice::<f32>()?, args.b.as_slice::<f32>()?);
        let (u, c) = (args.u.as_slice::<f32>()?, args.c.as_slice::<f32>()?);
        let magnitude = args.magnitude.as_slice::<f32>()?;
        let (norm, gain) = (
            args.norm.into_slice::<f32>()?,
            args.gain.into_slice::<f32>()?,
        );
        for j in 0..outputs {
            let b = &b[j * rank..(j + 1) * rank];
            let (mut cross, mut square) = (0f32, 0f32);
            for p in 0..rank {
                let mut inner = 0f32;
                for q in 0..rank {
                    inner = c[p * rank + q].mul_add(b[q], inner);
                }
                cross = b[p].mul_add(u[p * outputs + j], cross);
                square = b[p].mul_add(inner, square);
            }
            let sum = args
                .scale
                .mul_add(2.0 * cross + args.scale * square, squares[j]);
            // Rounding may leave a row that cancels just below zero; NaN stays.
            norm[j] = if sum < 0.0 { 0.0 } else { sum.sqrt() };
            gain[j] = magnitude[j] / norm[j];
        }
        Ok(())
    }
}

fn scale_columns<T: Activation>(cpu: &Cpu, args: ScaleColumns<'_, Cpu>) -> Result<(), KernelError> {
    let (count, columns) = (args.rows, args.columns);
    let z = &args.z.as_slice::<T>()?[..count * columns];
    let y = &mut args.y.into_slice::<T>()?[..count * columns];
    let ones;
    let gain = match args.gain {
        Some(gain) => gain.as_slice::<f32>()?,
        None => {
            ones = vec![1.0; columns];
            &ones
        }
    };
    let (bias, adds) = match args.start {
        Start::Zero => (None, false),
        Start::Result => (None, true),
        Start::Bias(bias) => (Some(bias.as_slice::<f32>()?), false),
    };
    let alpha = args.alpha;
    let parts = (rows(z, columns), rows(y, columns));
    cpu.for_each_block(count, block_rows(columns), parts, |_, _, (z, y)| {
        let rows = z.slice.chunks_exact(columns.max(1));
        for (z, y) in rows.zip(y.slice.chunks_exact_mut(columns.max(1))) {
            match bias {
                Some(bias) => scale_from(y, z, gain, alpha, bias),
                None => scale(y, z, gain, alpha, adds),
            }
        }
    });
    Ok(())
}

fn scale_columns_backward<T: Activation>(
    cpu: &Cpu,
    args: ScaleColumnsBackward<'_, Cpu>,
) -> Result<(), KernelError> {
    let (count, columns) = (args.rows, args.columns);
    let dy = &args.dy.as_slice::<T>()?[..count * columns];
    let z = &args.z.as_slice::<T>()?[..count * columns];
    let dz = &mut args.dz.into_slice::<T>()?[..count * columns];
    let (gain, norm) = (args.gain.as_slice::<f32>()?, args.norm.as_slice::<f32>()?);
    let dmagnitude = Some(args.dmagnitude);
    differentiate_rows(cpu, dz, dmagnitude, (count, columns), |dz, sums, first| {
        for (row, dz) in dz.chunks_exact_mut(columns.max(1)).enumerate() {
            let at = (first + row) * columns..(first + row + 1) * columns;
            differentiate(dz, sums, &dy[at.clone()], &z[at], gain, norm);
        }
    })
}

vectorize! {
    fn scale<T: Activation>(y: &mut [T], z: &[T], gain: &[f32], alpha: f32, adds: bool) {
        for ((y, &z), &gain) in y.iter_mut().zip(z).zip(gain) {
            let value = alpha * gain * z.get();
            *y = T::rounded(if adds { y.get() + value } else { value });
        }
    }

    fn scale_from<T: Activation>(y: &mut [T], z: &[T], gain: &[f32], alpha: f32, bias: &[f32]) {
        for (((y, &z), &gain), &bias) in y.iter_mut().zip(z).zip(gain).zip(bias) {
            *y = T::rounded((alpha * gain).mul_add(z.get(), bias));
        }
    }

    fn differentiate<T: Activation>(
        dz: &mut [T],
        sums: &mut [f32],
        dy: &[T],
        z: &[T],
        gain: &[f32],
        norm: &[f32],
    ) {
        let columns = dz.len();
        let (sums, dy, z) = (&mut sums[..columns], &dy[..columns], &z[..columns]);
        let (gain, norm) = (&gain[..columns], &norm[..columns]);
        for j in 0..columns {
            dz[j] = T::rounded(gain[j] * dy[j].get());
            sums[j] = (dy[j].get() / norm[j]).mul_add(z[j].get(), sums[j]);
        }
    }
}
