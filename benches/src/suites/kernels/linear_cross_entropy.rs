//! The output projection of Llama 3 8B and its loss; every token has a target.

use super::case::{Case, Scale, activations, zeros};
use tightrope_device::{
    DType::{BF16, F32},
    Tensor,
};
use tightrope_kernels::{
    Check,
    linear_cross_entropy::{Forward, ForwardBackward, LinearCrossEntropy},
};

const HIDDEN: usize = 4096;
/// Size of bf16 in bytes.
const SIZE: usize = 2;

/// Gradients that are computed in addition to the losses.
#[derive(Clone, Copy, PartialEq)]
enum Gradients {
    Nothing,
    OfInput,
    OfInputAndWeight,
}

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let tokens = scale.tokens(64);
    let vocabulary = scale.pick(4096, 128_256);
    [
        Gradients::Nothing,
        Gradients::OfInput,
        Gradients::OfInputAndWeight,
    ]
    .map(|gradients| case(tokens, vocabulary, gradients))
    .into()
}

/// The least assumes that no logit leaves the chip and none is computed twice. `kernel.cu` says
/// what its kernels move at least with logits in memory.
fn case(tokens: usize, vocabulary: usize, gradients: Gradients) -> Case {
    let (rows, weight) = (tokens * HIDDEN, vocabulary * HIDDEN);
    let losses = SIZE * (rows + weight) + 8 * tokens;
    let (name, least_bytes, products) = match gradients {
        Gradients::Nothing => ("forward", losses, 1),
        Gradients::OfInput => ("forward and backward", losses + SIZE * rows, 2),
        Gradients::OfInputAndWeight => (
            "forward and backward, weight trained",
            losses + SIZE * rows + 8 * weight,
            3,
        ),
    };
    Case {
        name: format!("linear_cross_entropy {name}"),
        shape: format!("{tokens} × {HIDDEN} → {vocabulary}"),
        elements: tokens * vocabulary,
        least_bytes,
        least_multiply_adds: products * tokens * HIDDEN * vocabulary,
        prepare: Box::new(move |cuda| {
            let x = activations(cuda, &[tokens, HIDDEN])?;
            let weight = activations(cuda, &[vocabulary, HIDDEN])?;
            let targets: Vec<i32> = (0..tokens)
                .map(|token| (token * 7919 % vocabulary) as i32)
                .collect();
            let targets = Tensor::from_slice(cuda, &[tokens], &targets)?;
            let weights = Tensor::from_slice(cuda, &[tokens], &vec![1.0 / tokens as f32; tokens])?;
            let mut losses = zeros(cuda, F32, &[tokens])?;
            let mut dx = zeros(cuda, BF16, &[tokens, HIDDEN])?;
            let mut dweight = match gradients {
                Gradients::OfInputAndWeight => Some(zeros(cuda, F32, &[vocabulary, HIDDEN])?),
                _ => None,
            };
            // Each call reads the targets back, and its time includes that.
            Ok(Box::new(move |cuda| {
                let forward = Forward {
                    x: x.view(),
                    weight: weight.view(),
                    lora: None,
                    targets: targets.view(),
                    logit_scale: 1.0,
                    softcap: None,
                    losses: losses.view_mut(),
                    tokens,
                    hidden: HIDDEN,
                    vocabulary,
                };
                if gradients == Gradients::Nothing {
                    return Ok(cuda.linear_cross_entropy_forward(forward.checked()?)?);
                }
                let args = ForwardBackward {
                    forward,
                    weights: weights.view(),
                    dx: dx.view_mut(),
                    dweight: dweight.as_mut().map(Tensor::view_mut),
                    rows: None,
                    dlora: None,
                };
                Ok(cuda.linear_cross_entropy_forward_backward(args.checked()?)?)
            }))
        }),
    }
}
