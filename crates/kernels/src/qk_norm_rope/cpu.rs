//! Norm and rotation of heads on the CPU: each head is read from memory once.

use super::{Backward, Forward, HeadsBackward, HeadsForward, QkNormRope};
use crate::{
    Checked, KernelError,
    cpu::block_rows,
    rms_norm::cpu::{Scale, differentiate_rows, dot, normalise_row},
};
use tightrope_device::{Cpu, View, rows, vectorize};

impl QkNormRope for Cpu {
    fn qk_norm_rope_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let offset = f32::from(u8::from(args.plus_one));
        for heads in [args.q, args.k] {
            let angles = Angles::new(args.cos, args.sin, args.rotary_dim, heads.heads)?;
            forward(self, heads, args.tokens, offset, args.eps, angles)?;
        }
        Ok(())
    }

    fn qk_norm_rope_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let offset = f32::from(u8::from(args.plus_one));
        for heads in [args.q, args.k] {
            let angles = Angles::new(args.cos, args.sin, args.rotary_dim, heads.heads)?;
            backward(self, heads, args.tokens, offset, angles)?;
        }
        Ok(())
    }
}

fn forward(
    cpu: &Cpu,
    heads: HeadsForward<'_, Cpu>,
    tokens: usize,
    offset: f32,
    eps: f32,
    angles: Angles<'_>,
) -> Result<(), KernelError> {
    let weight = heads.weight.as_slice()?;
    let (count, dim) = (tokens * heads.heads, weight.len());
    let x = &heads.x.as_slice::<f32>()?[..count * dim];
    let y = &mut heads.y.into_slice::<f32>()?[..count * dim];
    let rstd = &mut heads.rstd.into_slice::<f32>()?[..count];
    let scale = Scale { weight, offset };
    let parts = (rows(x, dim), rows(y, dim), rows(rstd, 1));
    cpu.for_each_block(count, block_rows(dim), parts, |first, _, (x, y, rstd)| {
        normalise_and_rotate(rstd.slice, y.slice, x.slice, scale, eps, angles, first);
    });
    Ok(())
}

fn backward(
    cpu: &Cpu,
    heads: HeadsBackward<'_, Cpu>,
    tokens: usize,
    offset: f32,
    angles: Angles<'_>,
) -> Result<(), KernelError> {
    let weight = heads.weight.as_slice()?;
    let (count, dim) = (tokens * heads.heads, weight.len());
    let dx = &mut heads.dx.into_slice::<f32>()?[..count * dim];
    let saved = Saved {
        x: &heads.x.as_slice::<f32>()?[..count * dim],
        rstd: &heads.rstd.as_slice::<f32>()?[..count],
        scale: Scale { weight, offset },
    };
    differentiate_rows(
        cpu,
        dx,
        heads.dweight,
        (count, dim),
        |dx, dweight, first| {
            differentiate(dx, dweight, saved, angles, first);
        },
    )
}

/// Cosines and sines of all tokens, for rows with `heads` rows per token.
#[derive(Clone, Copy)]
struct Angles<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    pairs: usize,
    heads: usize,
}

impl<'a> Angles<'a> {
    fn new(
        cos: View<'a, Cpu>,
        sin: View<'a, Cpu>,
        rotary_dim: usize,
        heads: usize,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            cos: cos.as_slice()?,
            sin: sin.as_slice()?,
            pairs: rotary_dim / 2,
            heads,
        })
    }

    /// Rotates a row by its angles, or back if `sign` is −1.
    #[inline(always)]
    fn rotate(self, x: &mut [f32], row: usize, sign: f32) {
        let start = row / self.heads * self.pairs;
        let cos = &self.cos[start..start + self.pairs];
        let sin = &self.sin[start..start + self.pairs];
        let (low, high) = x[..2 * self.pairs].split_at_mut(self.pairs);
        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (x, y, sin) = (*low, *high, sign * sin);
            *low = x.mul_add(*cos, -(y * sin));
            *high = y.mul_add(*cos, x * sin);
        }
    }
}

/// Input of the backward pass, for all rows.
#[derive(Clone, Copy)]
struct Saved<'a> {
    x: &'a [f32],
    rstd: &'a [f32],
    scale: Scale<'a>,
}

vectorize! {
    /// Writes the rows of `y`; the first is row `first` of all.
    fn normalise_and_rotate(
        rstd: &mut [f32],
        y: &mut [f32],
        x: &[f32],
        scale: Scale<'_>,
        eps: f32,
        angles: Angles<'_>,
        first: usize,
    ) {
        let dim = scale.weight.len();
        for (row, rstd) in rstd.iter_mut().enumerate() {
            let range = row * dim..(row + 1) * dim;
            let y = &mut y[range.clone()];
            *rstd = normalise_row(y, &x[range], scale, eps);
            angles.rotate(y, first + row, 1.0);
        }
    }

    /// Writes `dx` in place of `dy`, and `dweight` of the rows of `dx`; the first is row `first` of
    /// `saved`. An empty `dweight` is not computed.
    fn differentiate(
        dx: &mut [f32],
        dweight: &mut [f32],
        saved: Saved<'_>,
        angles: Angles<'_>,
        first: usize,
    ) {
        let Scale { weight, offset } = saved.scale;
        let dim = weight.len();
        for (row, dx) in dx.chunks_exact_mut(dim.max(1)).enumerate() {
            let row = first + row;
            let rstd = saved.rstd[row];
            let x = &saved.x[row * dim..(row + 1) * dim];
            angles.rotate(dx, row, -1.0);
            if !dweight.is_empty() {
                for i in 0..dim {
                    dweight[i] = (dx[i] * rstd).mul_add(x[i], dweight[i]);
                }
            }
            let mean = dot(x, |i| dx[i] * (weight[i] + offset)) * rstd / dim as f32;
            let pull = mean * rstd;
            for i in 0..dim {
                // `x · pull` is `n · mean_h(g · n)`.
                dx[i] = rstd * x[i].mul_add(-pull, dx[i] * (weight[i] + offset));
            }
        }
    }
}
