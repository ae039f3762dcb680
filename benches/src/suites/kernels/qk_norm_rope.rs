//! Norm and rotation of queries and keys, as in Qwen3 8B.

use super::case::{Case, Scale, activations, floats, positive, zeros};
use anyhow::Result;
use tightrope_device::{
    Cuda,
    DType::{BF16, F32},
    Tensor,
};
use tightrope_kernels::{
    Check,
    qk_norm_rope::{Backward, Forward, HeadsBackward, HeadsForward, QkNormRope},
};

const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD: usize = 128;
/// Size of bf16 in bytes.
const SIZE: usize = 2;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let tokens = scale.tokens(256);
    vec![
        forward(tokens),
        backward(tokens, false),
        backward(tokens, true),
    ]
}

fn shape(tokens: usize) -> String {
    format!("{tokens} × ({HEADS} + {KV_HEADS}) × {HEAD}")
}

/// Least number of bytes for this number of operands of all heads, `rstd`, the tables and both
/// weights.
fn least_bytes(tokens: usize, operands: usize) -> usize {
    let heads = tokens * (HEADS + KV_HEADS);
    heads * (operands * HEAD * SIZE + 4) + 8 * tokens * HEAD / 2 + 2 * 4 * HEAD
}

/// Queries or keys: the values read, the values written, `rstd` and the weight's gradient.
struct Side {
    x: Tensor<Cuda>,
    y: Tensor<Cuda>,
    rstd: Tensor<Cuda>,
    dweight: Tensor<Cuda>,
    heads: usize,
}

impl Side {
    fn new(cuda: &Cuda, tokens: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            x: activations(cuda, &[tokens, heads, HEAD])?,
            y: zeros(cuda, BF16, &[tokens, heads, HEAD])?,
            rstd: positive(cuda, &[tokens, heads])?,
            dweight: zeros(cuda, F32, &[HEAD])?,
            heads,
        })
    }

    fn forward<'a>(&'a mut self, weight: &'a Tensor<Cuda>) -> HeadsForward<'a, Cuda> {
        HeadsForward {
            x: self.x.view(),
            weight: weight.view(),
            y: self.y.view_mut(),
            rstd: self.rstd.view_mut(),
            heads: self.heads,
        }
    }

    fn backward<'a>(
        &'a mut self,
        weight: &'a Tensor<Cuda>,
        is_trained: bool,
    ) -> HeadsBackward<'a, Cuda> {
        HeadsBackward {
            dx: self.y.view_mut(),
            x: self.x.view(),
            rstd: self.rstd.view(),
            weight: weight.view(),
            dweight: is_trained.then_some(self.dweight.view_mut()),
            heads: self.heads,
        }
    }
}

fn forward(tokens: usize) -> Case {
    Case {
        name: "qk_norm_rope forward".into(),
        shape: shape(tokens),
        elements: tokens * (HEADS + KV_HEADS) * HEAD,
        least_bytes: least_bytes(tokens, 2),
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let mut q = Side::new(cuda, tokens, HEADS)?;
            let mut k = Side::new(cuda, tokens, KV_HEADS)?;
            let weights = [floats(cuda, &[HEAD])?, floats(cuda, &[HEAD])?];
            let cos = floats(cuda, &[tokens, HEAD / 2])?;
            let sin = floats(cuda, &[tokens, HEAD / 2])?;
            Ok(Box::new(move |cuda| {
                let args = Forward {
                    q: q.forward(&weights[0]),
                    k: k.forward(&weights[1]),
                    plus_one: false,
                    eps: 1e-6,
                    cos: cos.view(),
                    sin: sin.view(),
                    tokens,
                    head_dim: HEAD,
                    rotary_dim: HEAD,
                };
                Ok(cuda.qk_norm_rope_forward(args.checked()?)?)
            }))
        }),
    }
}

fn backward(tokens: usize, is_trained: bool) -> Case {
    let gradients = if is_trained { 2 * 8 * HEAD } else { 0 };
    Case {
        name: format!(
            "qk_norm_rope backward{}",
            if is_trained { ", weights trained" } else { "" }
        ),
        shape: shape(tokens),
        elements: tokens * (HEADS + KV_HEADS) * HEAD,
        least_bytes: least_bytes(tokens, 3) + gradients,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let mut q = Side::new(cuda, tokens, HEADS)?;
            let mut k = Side::new(cuda, tokens, KV_HEADS)?;
            let weights = [floats(cuda, &[HEAD])?, floats(cuda, &[HEAD])?];
            let cos = floats(cuda, &[tokens, HEAD / 2])?;
            let sin = floats(cuda, &[tokens, HEAD / 2])?;
            Ok(Box::new(move |cuda| {
                let args = Backward {
                    q: q.backward(&weights[0], is_trained),
                    k: k.backward(&weights[1], is_trained),
                    plus_one: false,
                    cos: cos.view(),
                    sin: sin.view(),
                    tokens,
                    head_dim: HEAD,
                    rotary_dim: HEAD,
                };
                Ok(cuda.qk_norm_rope_backward(args.checked()?)?)
            }))
        }),
    }
}
