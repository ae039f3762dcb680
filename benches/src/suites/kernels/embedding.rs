//! The embedding's gather and scatter.

use super::case::{Case, Scale, activations, zeros};
use std::collections::BTreeSet;
use tightrope_device::{
    DType::{BF16, F32},
    Tensor,
};
use tightrope_kernels::{
    Check,
    embedding::{Backward, Embedding, Forward},
};

const HIDDEN: usize = 4096;
/// Size of bf16 in bytes.
const SIZE: usize = 2;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let tokens = scale.tokens(128);
    let vocabulary = scale.pick(1024, 128_256);
    vec![forward(tokens, vocabulary), backward(tokens, vocabulary)]
}

/// Ids of which some are frequent, as in text.
fn ids(tokens: usize, vocabulary: usize) -> Vec<u32> {
    let id = |token: usize| (token * 7919 % vocabulary) as u32;
    let often = |token: usize| {
        if token.is_multiple_of(4) {
            token % 32
        } else {
            token
        }
    };
    (0..tokens).map(|token| id(often(token))).collect()
}

fn distinct(ids: &[u32]) -> usize {
    ids.iter().collect::<BTreeSet<_>>().len()
}

fn forward(tokens: usize, vocabulary: usize) -> Case {
    let ids = ids(tokens, vocabulary);
    Case {
        name: "embedding forward".into(),
        shape: format!("{tokens} of {vocabulary} × {HIDDEN}"),
        elements: tokens * HIDDEN,
        least_bytes: (distinct(&ids) + tokens) * HIDDEN * SIZE + 4 * tokens,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let ids = Tensor::from_slice(cuda, &[tokens], &ids)?;
            let table = activations(cuda, &[vocabulary, HIDDEN])?;
            let mut y = zeros(cuda, BF16, &[tokens, HIDDEN])?;
            Ok(Box::new(move |cuda| {
                let args = Forward {
                    ids: ids.view(),
                    table: table.view(),
                    scale: 1.0,
                    y: y.view_mut(),
                    tokens,
                    vocabulary,
                    hidden: HIDDEN,
                };
                Ok(cuda.embedding_forward(args.checked()?)?)
            }))
        }),
    }
}

fn backward(tokens: usize, vocabulary: usize) -> Case {
    let ids = ids(tokens, vocabulary);
    Case {
        name: "embedding backward".into(),
        shape: format!("{tokens} of {vocabulary} × {HIDDEN}"),
        elements: tokens * HIDDEN,
        least_bytes: (8 * distinct(&ids) + SIZE * tokens) * HIDDEN + 4 * tokens,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let ids = Tensor::from_slice(cuda, &[tokens], &ids)?;
            let dy = activations(cuda, &[tokens, HIDDEN])?;
            let mut dtable = zeros(cuda, F32, &[vocabulary, HIDDEN])?;
            Ok(Box::new(move |cuda| {
                let args = Backward {
                    ids: ids.view(),
                    dy: dy.view(),
                    scale: 1.0,
                    dtable: dtable.view_mut(),
                    tokens,
                    vocabulary,
                    hidden: HIDDEN,
                };
                Ok(cuda.embedding_backward(args.checked()?)?)
            }))
        }),
    }
}
