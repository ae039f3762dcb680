//! RMSNorm on the CPU: each row is read from memory once; the second pass over it reads the cache.

use super::{Backward, Forward, RmsNorm};
use crate::{
    Checked, KernelError,
    cpu::{
        block_rows,
        float::{Activation, Float},
        math::{LANES, sum_lanes},
        scratch::Scratch,
    },
};
use half::bf16;
use tightrope_device::{Cpu, DType, ViewMut, rows, vectorize};

/// Largest number of partial sums of `dweight`. Each covers consecutive rows, and they are added in
/// order.
const PARTIALS: usize = 64;

impl RmsNorm for Cpu {
    fn rms_norm_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.x.dtype() {
            DType::BF16 => forward::<bf16>(self, args),
            _ => forward::<f32>(self, args),
        }
    }

    fn rms_norm_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.x.dtype() {
            DType::BF16 => backward::<bf16>(self, args),
            _ => backward::<f32>(self, args),
        }
    }
}

fn forward<T: Activation>(cpu: &Cpu, args: Forward<'_, Cpu>) -> Result<(), KernelError> {
    let (count, dim) = (args.rows, args.dim);
    let x = &args.x.as_slice::<T>()?[..count * dim];
    let y = &mut args.y.into_slice::<T>()?[..count * dim];
    let rstd = &mut args.rstd.into_slice::<f32>()?[..count];
    let residual = match args.residual {
        None => None,
        Some(residual) => {
            let add = &residual.add.as_slice::<T>()?[..count * dim];
            let sum = &mut residual.sum.into_slice::<T>()?[..count * dim];
            Some((rows(add, dim), rows(sum, dim)))
        }
    };
    let scale = Scale {
        weight: args.weight.as_slice()?,
        offset: f32::from(u8::from(args.plus_one)),
    };
    let eps = args.eps;
    let parts = (rows(x, dim), residual, rows(y, dim), rows(rstd, 1));
    cpu.for_each_block(count, block_rows(dim), parts, |_, _, (x, add, y, rstd)| {
        let (rstd, y) = (rstd.slice, y.slice);
        match add {
            None => normalise(rstd, y, x.slice, scale, eps),
            Some((add, sum)) => {
                add_and_normalise(rstd, y, sum.slice, x.slice, add.slice, scale, eps);
            }
        }
    });
    Ok(())
}

fn backward<T: Activation>(cpu: &Cpu, args: Backward<'_, Cpu>) -> Result<(), KernelError> {
    let (count, dim) = (args.rows, args.dim);
    let dx = &mut args.dx.into_slice::<T>()?[..count * dim];
    let saved = Saved {
        dy: &args.dy.as_slice::<T>()?[..count * dim],
        x: &args.x.as_slice::<T>()?[..count * dim],
        rstd: &args.rstd.as_slice::<f32>()?[..count],
        scale: Scale {
            weight: args.weight.as_slice()?,
            offset: f32::from(u8::from(args.plus_one)),
        },
    };
    let accumulate = args.accumulate;
    differentiate_rows(cpu, dx, args.dweight, (count, dim), |dx, dweight, first| {
        differentiate(dx, dweight, saved, first, accumulate);
    })
}

/// Calls `differentiate` with runs of the `count` rows of `dx`, in order: with the rows, with the
/// partial sum of the run that is added into `dweight`, and with the number of the first row. The
/// partial sum is empty if there is no `dweight`.
pub(crate) fn differentiate_rows<T: Activation>(
    cpu: &Cpu,
    dx: &mut [T],
    dweight: Option<ViewMut<'_, Cpu>>,
    (count, dim): (usize, usize),
    differentiate: impl Fn(&mut [T], &mut [f32], usize) + Sync,
) -> Result<(), KernelError> {
    let Some(dweight) = dweight else {
        cpu.for_each_block(count, block_rows(dim), rows(dx, dim), |first, _, dx| {
            differentiate(dx.slice, &mut [], first);
        });
        return Ok(());
    };
    let block = block_rows(dim).max(count.div_ceil(PARTIALS));
    let blocks = count.div_ceil(block);
    let mut partials = Scratch::take(cpu, blocks * dim)?;
    partials.fill(0.0);
    let parts = (rows(dx, block * dim), rows(&mut partials[..], dim));
    cpu.for_each_block(blocks, 1, parts, |index, _, (dx, partial)| {
        differentiate(dx.slice, partial.slice, index * block);
    });
    let dweight = dweight.into_slice::<f32>()?;
    for partial in partials.chunks_exact(dim.max(1)) {
        for (total, partial) in dweight.iter_mut().zip(partial) {
            *total += partial;
        }
    }
    Ok(())
}

/// Factor of each feature: `weight + offset`.
#[derive(Clone, Copy)]
pub(crate) struct Scale<'a> {
    pub weight: &'a [f32],
    pub offset: f32,
}

/// Input of the backward pass, for all rows.
#[derive(Clone, Copy)]
struct Saved<'a, T> {
    dy: &'a [T],
    x: &'a [T],
    rstd: &'a [f32],
    scale: Scale<'a>,
}

/// `Σ_i a[i] · b[i]` in lanes.
#[inline(always)]
pub(crate) fn dot<T: Float>(a: &[T], b: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = a.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let chunk = &a[start..start + LANES];
        for lane in 0..LANES {
            lanes[lane] = chunk[lane].get().mul_add(b(start + lane), lanes[lane]);
        }
    }
    for index in whole..a.len() {
        lanes[index - whole] = a[index].get().mul_add(b(index), lanes[index - whole]);
    }
    sum_lanes(lanes)
}

/// Normalises one row and returns its `rstd`.
#[inline(always)]
pub(crate) fn normalise_row<T: Activation, X: Float>(
    y: &mut [T],
    x: &[X],
    scale: Scale<'_>,
    eps: f32,
) -> f32 {
    let x = &x[..y.len()];
    let weight = &scale.weight[..y.len()];
    let rstd = 1.0 / (dot(x, |i| x[i].get()) / y.len() as f32 + eps).sqrt();
    for i in 0..y.len() {
        y[i] = T::rounded(x[i].get() * rstd * (weight[i] + scale.offset));
    }
    rstd
}

vectorize! {
    fn normalise<T: Activation>(
        rstd: &mut [f32],
        y: &mut [T],
        x: &[T],
        scale: Scale<'_>,
        eps: f32,
    ) {
        let dim = scale.weight.len();
        for (row, rstd) in rstd.iter_mut().enumerate() {
            let range = row * dim..(row + 1) * dim;
            *rstd = normalise_row(&mut y[range.clone()], &x[range], scale, eps);
        }
    }

    /// The sum is normalised as it is stored.
    fn add_and_normalise<T: Activation>(
        rstd: &mut [f32],
        y: &mut [T],
        sum: &mut [T],
        x: &[T],
        add: &[T],
        scale: Scale<'_>,
        eps: f32,
    ) {
        let dim = scale.weight.len();
        for (row, rstd) in rstd.iter_mut().enumerate() {
            let range = row * dim..(row + 1) * dim;
            let (x, add) = (&x[range.clone()], &add[range.clone()]);
            let sum = &mut sum[range.clone()];
            for i in 0..dim {
                sum[i] = T::rounded(x[i].get() + add[i].get());
            }
            *rstd = normalise_row(&mut y[range], sum, scale, eps);
        }
    }

    /// Writes `dx` and `dweight` of the rows of `dx`; the first is row `first` of `saved`. An empty
    /// `dweight` is not computed.
    fn differentiate<T: Activation>(
        dx: &mut [T],
        dweight: &mut [f32],
        saved: Saved<'_, T>,
        first: usize,
        accumulate: bool,
    ) {
        let Scale { weight, offset } = saved.scale;
        let dim = weight.len();
        for (row, dx) in dx.chunks_exact_mut(dim.max(1)).enumerate() {
            let row = first + row;
            let rstd = saved.rstd[row];
            let dy = &saved.dy[row * dim..(row + 1) * dim];
            let x = &saved.x[row * dim..(row + 1) * dim];
            let mean = dot(x, |i| dy[i].get() * (weight[i] + offset)) * rstd / dim as f32;
            let pull = mean * rstd;
            for i in 0..dim {
                // `x · pull` is `n · mean_h(g · n)`.
                let g = dy[i].get() * (weight[i] + offset);
                let gradient = rstd * x[i].get().mul_add(-pull, g);
                dx[i] = T::rounded(if accumulate { dx[i].get() + gradient } else { gradient });
            }
            if !dweight.is_empty() {
                for i in 0..dim {
                    dweight[i] = (dy[i].get() * rstd).mul_add(x[i].get(), dweight[i]);
                }
            }
        }
    }
}
