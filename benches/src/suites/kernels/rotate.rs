//! The rotation of queries and keys, in place.

use super::case::{Case, Scale, activations, floats};
use tightrope_kernels::{
    Check,
    rope::{Direction, Heads, Pairing, Rope, Rotate},
};

const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD: usize = 128;
/// Size of bf16 in bytes.
const SIZE: usize = 2;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let tokens = scale.tokens(256);
    [Pairing::Halves, Pairing::Interleaved]
        .map(|pairing| case(tokens, pairing))
        .into()
}

/// The backward pass does the same work.
fn case(tokens: usize, pairing: Pairing) -> Case {
    let elements = tokens * (HEADS + KV_HEADS) * HEAD;
    Case {
        name: format!("rotate, {pairing:?}"),
        shape: format!("{tokens} × ({HEADS} + {KV_HEADS}) × {HEAD}"),
        elements,
        least_bytes: 2 * elements * SIZE + 8 * tokens * HEAD / 2,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let mut q = activations(cuda, &[tokens, HEADS * HEAD])?;
            let mut k = activations(cuda, &[tokens, KV_HEADS * HEAD])?;
            let cos = floats(cuda, &[tokens, HEAD / 2])?;
            let sin = floats(cuda, &[tokens, HEAD / 2])?;
            Ok(Box::new(move |cuda| {
                let args = Rotate {
                    q: Heads {
                        tensor: q.view_mut(),
                        heads: HEADS,
                        row_stride: HEADS * HEAD,
                    },
                    k: Heads {
                        tensor: k.view_mut(),
                        heads: KV_HEADS,
                        row_stride: KV_HEADS * HEAD,
                    },
                    cos: cos.view(),
                    sin: sin.view(),
                    tokens,
                    head_dim: HEAD,
                    rotary_dim: HEAD,
                    pairing,
                    direction: Direction::Forward,
                };
                Ok(cuda.rope(args.checked()?)?)
            }))
        }),
    }
}
