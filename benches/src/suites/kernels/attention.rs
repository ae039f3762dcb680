//! Causal attention over whole sequences.

use super::case::{Case, Scale, activations, floats, zeros};
use anyhow::Result;
use tightrope_device::{
    Cuda,
    DType::{BF16, F32},
};
use tightrope_kernels::{
    Check,
    attention::{Attention, Backward, Config, Forward, Range, Ranges},
};

const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD: usize = 128;
/// Size of bf16 in bytes.
const SIZE: usize = 2;
/// Largest number of tokens in a sequence.
const LONGEST: usize = 2048;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let tokens = scale.tokens(192);
    vec![forward(tokens), backward(tokens)]
}

fn shape(tokens: usize) -> String {
    let length = tokens.min(LONGEST);
    let sequences = tokens / length;
    format!("{sequences} × {length} tokens, {HEADS} heads over {KV_HEADS}, {HEAD}")
}

/// Number of multiply-adds of `products` matrix products over the pairs that causality leaves.
fn multiply_adds(tokens: usize, products: usize) -> usize {
    let length = tokens.min(LONGEST);
    tokens / length * (length * (length + 1) / 2) * products * HEADS * HEAD
}

fn ranges(cuda: &Cuda, tokens: usize) -> Result<Ranges<Cuda>> {
    let length = tokens.min(LONGEST) as u32;
    let starts = (0..tokens as u32).step_by(length as usize);
    let mut ranges = Ranges::empty(cuda)?;
    ranges.set(starts.map(|start| Range::rows(start, length)))?;
    Ok(ranges)
}

fn config(ranges: &Ranges<Cuda>) -> Config<'_, Cuda> {
    Config {
        ranges,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD,
        scale: (HEAD as f32).powf(-0.5),
        window: None,
        softcap: None,
    }
}

fn forward(tokens: usize) -> Case {
    Case {
        name: "attention forward".into(),
        shape: shape(tokens),
        elements: tokens * HEADS * HEAD,
        least_bytes: tokens * (HEAD * SIZE * (2 * HEADS + 2 * KV_HEADS) + 4 * HEADS),
        least_multiply_adds: multiply_adds(tokens, 2),
        prepare: Box::new(move |cuda| {
            let ranges = ranges(cuda, tokens)?;
            let queries = [tokens, HEADS, HEAD];
            let keys = [tokens, KV_HEADS, HEAD];
            let q = activations(cuda, &queries)?;
            let (k, v) = (activations(cuda, &keys)?, activations(cuda, &keys)?);
            let mut y = zeros(cuda, BF16, &queries)?;
            let mut lse = zeros(cuda, F32, &[tokens, HEADS])?;
            Ok(Box::new(move |cuda| {
                let args = Forward {
                    q: q.view(),
                    k: k.view(),
                    v: v.view(),
                    y: y.view_mut(),
                    lse: lse.view_mut(),
                    config: config(&ranges),
                };
                Ok(cuda.attention_forward(args.checked()?)?)
            }))
        }),
    }
}

/// The backward pass has at least five products, with the scores computed again.
fn backward(tokens: usize) -> Case {
    Case {
        name: "attention backward".into(),
        shape: shape(tokens),
        elements: tokens * HEADS * HEAD,
        least_bytes: tokens * (HEAD * SIZE * (4 * HEADS + 4 * KV_HEADS) + 8 * HEADS),
        least_multiply_adds: multiply_adds(tokens, 5),
        prepare: Box::new(move |cuda| {
            let ranges = ranges(cuda, tokens)?;
            let queries = [tokens, HEADS, HEAD];
            let keys = [tokens, KV_HEADS, HEAD];
            let (q, dy) = (activations(cuda, &queries)?, activations(cuda, &queries)?);
            let y = activations(cuda, &queries)?;
            let (k, v) = (activations(cuda, &keys)?, activations(cuda, &keys)?);
            let lse = floats(cuda, &[tokens, HEADS])?;
            let mut delta = zeros(cuda, F32, &[tokens, HEADS])?;
            let mut dq = zeros(cuda, BF16, &queries)?;
            let (mut dk, mut dv) = (zeros(cuda, BF16, &keys)?, zeros(cuda, BF16, &keys)?);
            Ok(Box::new(move |cuda| {
                let args = Backward {
                    dy: dy.view(),
                    y: y.view(),
                    lse: lse.view(),
                    q: q.view(),
                    k: k.view(),
                    v: v.view(),
                    delta: delta.view_mut(),
                    dq: dq.view_mut(),
                    dk: dk.view_mut(),
                    dv: dv.view_mut(),
                    config: config(&ranges),
                };
                Ok(cuda.attention_backward(args.checked()?)?)
            }))
        }),
    }
}
