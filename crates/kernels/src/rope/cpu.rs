//! The rotation on the CPU: it rotates Q and K of a token while its cosines and sines are in the
//! cache.

use super::{Heads, Pairing, Rope, Rotate};
use crate::{
    Checked, KernelError,
    cpu::{block_rows, float::Activation},
};
use half::bf16;
use tightrope_device::{Cpu, DType, IndexWidth, rows, vectorize};

impl Rope for Cpu {
    fn rope_with_width(
        &self,
        args: Checked<Rotate<'_, Self>>,
        width: IndexWidth,
    ) -> Result<(), KernelError> {
        let args = args.on(self)?;
        args.fits(width)?;
        match args.q.tensor.dtype() {
            DType::BF16 => rotate::<bf16>(self, args, width),
            _ => rotate::<f32>(self, args, width),
        }
    }
}

fn rotate<T: Activation>(
    cpu: &Cpu,
    args: Rotate<'_, Cpu>,
    width: IndexWidth,
) -> Result<(), KernelError> {
    let pairs = args.rotary_dim / 2;
    let layout = |heads: &Heads<'_, Cpu>| Layout {
        heads: heads.heads,
        row_stride: heads.row_stride,
        head_dim: args.head_dim,
    };
    let layouts = [layout(&args.q), layout(&args.k)];
    let row = args.head_dim * (args.q.heads + args.k.heads);
    let block = block_rows(row);
    let table = args.tokens * pairs;
    let parts = (
        rows(args.q.tensor.into_slice::<T>()?, args.q.row_stride),
        rows(args.k.tensor.into_slice::<T>()?, args.k.row_stride),
        rows(&args.cos.as_slice::<f32>()?[..table], pairs),
        rows(&args.sin.as_slice::<f32>()?[..table], pairs),
    );
    let rotate = match (width, args.pairing) {
        (IndexWidth::Narrow, Pairing::Halves) => rotate_block::<T, u32, Halves>,
        (IndexWidth::Narrow, Pairing::Interleaved) => rotate_block::<T, u32, Interleaved>,
        (IndexWidth::Wide, Pairing::Halves) => rotate_block::<T, u64, Halves>,
        (IndexWidth::Wide, Pairing::Interleaved) => rotate_block::<T, u64, Interleaved>,
    };
    let sign = args.direction.sign();
    cpu.for_each_block(args.tokens, block, parts, |_, tokens, (q, k, cos, sin)| {
        let angles = Angles {
            cos: cos.slice,
            sin: sin.slice,
            pairs,
            sign,
        };
        rotate(q.slice, k.slice, layouts, angles, tokens);
    });
    Ok(())
}

#[derive(Clone, Copy)]
struct Layout {
    heads: usize,
    row_stride: usize,
    head_dim: usize,
}

#[derive(Clone, Copy)]
struct Angles<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    pairs: usize,
    sign: f32,
}

/// Integer type of offsets.
trait Offset: Copy {
    /// `a · x + b · y`; the check has proved that all values fit.
    fn offset(a: usize, x: usize, b: usize, y: usize) -> usize;
}
macro_rules! offset {
    ($($integer:ty)*) => {$(
        impl Offset for $integer {
            #[inline(always)]
            fn offset(a: usize, x: usize, b: usize, y: usize) -> usize {
                let [a, x, b, y] = [a, x, b, y].map(|value| value as $integer);
                (a * x + b * y) as usize
            }
        }
    )*};
}
offset!(u32 u64);

/// Rule that pairs the elements of a head.
trait Pairs {
    fn rotate<T: Activation>(head: &mut [T], cos: &[f32], sin: &[f32], sign: f32);
}

/// Rotates one pair.
#[inline(always)]
fn turn<T: Activation>(a: &mut T, b: &mut T, cos: f32, sin: f32) {
    let (x, y) = (a.get(), b.get());
    *a = T::rounded(x.mul_add(cos, -(y * sin)));
    *b = T::rounded(y.mul_add(cos, x * sin));
}

struct Halves;
impl Pairs for Halves {
    #[inline(always)]
    fn rotate<T: Activation>(head: &mut [T], cos: &[f32], sin: &[f32], sign: f32) {
        let (a, b) = head.split_at_mut(cos.len());
        for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            turn(a, b, *cos, sign * sin);
        }
    }
}

struct Interleaved;
impl Pairs for Interleaved {
    #[inline(always)]
    fn rotate<T: Activation>(head: &mut [T], cos: &[f32], sin: &[f32], sign: f32) {
        let (pairs, _) = head.as_chunks_mut::<2>();
        for (([a, b], cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
            turn(a, b, *cos, sign * sin);
        }
    }
}

vectorize! {
    fn rotate_block<T: Activation, I: Offset, P: Pairs>(
        q: &mut [T],
        k: &mut [T],
        layouts: [Layout; 2],
        angles: Angles<'_>,
        tokens: usize,
    ) {
        let pairs = angles.pairs;
        for token in 0..tokens {
            let cos = &angles.cos[token * pairs..(token + 1) * pairs];
            let sin = &angles.sin[token * pairs..(token + 1) * pairs];
            for (rows, layout) in [&mut *q, &mut *k].into_iter().zip(layouts) {
                for head in 0..layout.heads {
                    let start = I::offset(token, layout.row_stride, head, layout.head_dim);
                    P::rotate(&mut rows[start..start + 2 * pairs], cos, sin, angles.sign);
                }
            }
        }
    }
}
