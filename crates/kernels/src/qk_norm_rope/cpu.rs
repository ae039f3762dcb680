//! Norm and rotation of heads on the CPU: each head is read from memory once.

use super::{Backward, Forward, HeadsBackward, HeadsForward, QkNormRope};
use crate::{
    Checked, KernelError,
    cpu::{block_rows, float::Activation},
    rms_norm::cpu::{Scale, differentiate_rows, dot, normalise_row},
};
use half::bf16;
use tightrope_device::{Cpu, DType, View, rows, vectorize};

impl QkNormRope for Cpu {
    fn qk_norm_rope_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let offset = f32::from(u8::from(args.plus_one));
        for heads in [args.q, args.k] {
            let angles = Angles::new(args.cos, args.sin, args.rotary_dim, heads.heads)?;
            match heads.x.dtype() {
                DType::BF16 => forward::<bf16>(self, heads, args.tokens, offset, args.eps, angles)?,
                _ => forward::<f32>(self, heads, args.tokens, offset, args.eps, angles)?,
            }
        }
        Ok(())
    }

    fn qk_norm_rope_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let offset = f32::from(u8::from(args.plus_one));
        for heads in [args.q, args.k] {
            let angles = Angles::new(args.cos, args.sin, args.rotary_dim, heads.heads)?;
            match heads.x.dtype() {
                DType::BF16 => backward::<bf16>(self, heads, args.tokens, offset, angles)?,
                _ => backward::<f32>(self, heads, args.tokens, offset, angles)?,
            }
        }
        Ok(())
    }
}

fn forward<T: Activation>(
    cpu: &Cpu,
    heads: HeadsForward<'_, Cpu>,
    tokens: usize,
    offset: f32,
    eps: f32,
    angles: Angles<'_>,
) -> Result<(), KernelError> {
    let weight = heads.weight.as_slice()?;
    let (count, dim) = (tokens * heads.heads, weight.len());
    let x = &heads.x.as_slice::<T>()?[..count * dim];
    let y = &mut heads.y.into_slice::<T>()?[..count * dim];
    let rstd = &mut heads.rstd.into_slice::<f32>()?[..count];
    let scale = Scale { weight, offset };
    let parts = (rows(x, dim), rows(y, dim), rows(rstd, 1));
    cpu.for_each_block(count, block_rows(dim), parts, |first, _, (x, y, rstd)| {
        let head = &mut vec![0.0; dim];
        normalise_and_rotate(
            rstd.slice,
            y.slice,
            x.slice,
            (scale, eps),
            angles,
            first,
            head,
        );
    });
    Ok(())
}

fn backward<T: Activation>(
    cpu: &Cpu,
    heads: HeadsBackward<'_, Cpu>,
    tokens: usize,
    offset: f32,
    angles: Angles<'_>,
) -> Result<(), KernelError> {
    let weight = heads.weight.as_slice()?;
    let (count, dim) = (tokens * heads.heads, weight.len());
    let dx = &mut heads.dx.into_slice::<T>()?[..count * dim];
    let saved = Saved {
        x: &heads.x.as_slice::<T>()?[..count * dim],
        rstd: &heads.rstd.as_slice::<f32>()?[..count],
        scale: Scale { weight, offset },
    };
    differentiate_rows(
        cpu,
        dx,
        heads.dweight,
        (count, dim),
        |dx, dweight, first| {
            differentiate(dx, dweight, saved, angles, first, &mut vec![0.0; dim]);
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
struct Saved<'a, T> {
    x: &'a [T],
    rstd: &'a [f32],
    scale: Scale<'a>,
}

vectorize! {
    /// Writes the rows of `y`; the first is row `first` of all. `norm` has the factors and eps;
    /// `head` is work space for one row.
    fn normalise_and_rotate<T: Activation>(
        rstd: &mut [f32],
        y: &mut [T],
        x: &[T],
        norm: (Scale<'_>, f32),
        angles: Angles<'_>,
        first: usize,
        head: &mut [f32],
    ) {
        let (scale, eps) = norm;
        let dim = scale.weight.len();
        for (row, rstd) in rstd.iter_mut().enumerate() {
            let range = row * dim..(row + 1) * dim;
            *rstd = normalise_row(head, &x[range.clone()], scale, eps);
            angles.rotate(head, first + row, 1.0);
            for (y, &head) in y[range].iter_mut().zip(&*head) {
                *y = T::rounded(head);
            }
        }
    }

    /// Writes `dx` in place of `dy`, and `dweight` of the rows of `dx`; the first is row `first` of
    /// `saved`. An empty `dweight` is not computed. `head` is work space for one row.
    fn differentiate<T: Activation>(
        dx: &mut [T],
        dweight: &mut [f32],
        saved: Saved<'_, T>,
        angles: Angles<'_>,
        first: usize,
        head: &mut [f32],
    ) {
        let Scale { weight, offset } = saved.scale;
        let dim = weight.len();
        for (row, dx) in dx.chunks_exact_mut(dim.max(1)).enumerate() {
            let row = first + row;
            let rstd = saved.rstd[row];
            let x = &saved.x[row * dim..(row + 1) * dim];
            let d = &mut head[..dim];
            for (d, dx) in d.iter_mut().zip(&*dx) {
                *d = dx.get();
            }
            angles.rotate(d, row, -1.0);
            if !dweight.is_empty() {
                for i in 0..dim {
                    dweight[i] = (d[i] * rstd).mul_add(x[i].get(), dweight[i]);
                }
            }
            let mean = dot(x, |i| d[i] * (weight[i] + offset)) * rstd / dim as f32;
            let pull = mean * rstd;
            for i in 0..dim {
                // `x · pull` is `n · mean_h(g · n)`.
                let g = d[i] * (weight[i] + offset);
                dx[i] = T::rounded(rstd * x[i].get().mul_add(-pull, g));
            }
        }
    }
}
