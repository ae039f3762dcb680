//! A projection of Llama 3 8B: alone, in NF4, and with an adapter of rank 16 behind dropout.

use super::case::{Case, Scale, activations, bytes, floats, positive, zeros};
use anyhow::Result;
use tightrope_device::{
    Cuda,
    DType::{BF16, F32},
    Tensor,
};
use tightrope_kernels::{
    Check,
    linear::{
        BackwardInput, BackwardWeights, Forward, Linear, LoraBackwardInput, LoraBackwardWeights,
        LoraForward, Shape,
    },
    nf4::{self, BLOCK, Scales},
    product::{Dropout, Elements},
};

const INPUTS: usize = 4096;
const OUTPUTS: usize = 4096;
const RANK: usize = 16;
/// Size of bf16 in bytes.
const SIZE: usize = 2;
/// Scale α/r of the adapter.
const FACTOR: f32 = 2.0;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let tokens = scale.tokens(64);
    vec![
        forward(tokens, false),
        forward(tokens, true),
        forward_nf4(tokens),
        backward_input(tokens),
        backward_weights(tokens, false),
        backward_weights(tokens, true),
    ]
}

fn sizes(tokens: usize) -> Shape {
    Shape {
        tokens,
        inputs: INPUTS,
        outputs: OUTPUTS,
    }
}

/// A case with its operation, its adapter if there is one, and the least that its products must
/// move and multiply.
fn case(
    (operation, has_adapter): (&str, bool),
    tokens: usize,
    (least_bytes, least_multiply_adds): (usize, usize),
    prepare: super::case::Prepare,
) -> Case {
    let (adapter, rank) = if has_adapter {
        (", adapter and dropout", format!(", rank {RANK}"))
    } else {
        ("", String::new())
    };
    Case {
        name: format!("linear {operation}{adapter}"),
        shape: format!("{tokens} × {INPUTS} → {OUTPUTS}{rank}"),
        elements: tokens * OUTPUTS,
        least_bytes,
        least_multiply_adds,
        prepare,
    }
}

/// Both factors, the values between them, and the keys of the dropout.
struct Adapter {
    a: Tensor<Cuda>,
    b: Tensor<Cuda>,
    between: Tensor<Cuda>,
    keys: Tensor<Cuda>,
}

impl Adapter {
    /// Least number of bytes: the factors read once, `between` written and the keys read.
    fn least_bytes(tokens: usize) -> usize {
        4 * RANK * (INPUTS + OUTPUTS) + tokens * (4 * RANK + 8)
    }

    /// Number of multiply-adds of both factors.
    fn multiply_adds(tokens: usize) -> usize {
        tokens * RANK * (INPUTS + OUTPUTS)
    }

    fn new(cuda: &Cuda, tokens: usize) -> Result<Self> {
        let keys: Vec<u32> = (0..tokens as u32).flat_map(|token| [0, token]).collect();
        Ok(Self {
            a: floats(cuda, &[RANK, INPUTS])?,
            b: floats(cuda, &[OUTPUTS, RANK])?,
            between: zeros(cuda, F32, &[tokens, RANK])?,
            keys: Tensor::from_slice(cuda, &[tokens, 2], &keys)?,
        })
    }
}

fn dropout(keys: &Tensor<Cuda>) -> Option<Dropout<'_, Cuda>> {
    Some(Dropout {
        probability: 0.05,
        salt: 7,
        keys: keys.view(),
    })
}

fn forward(tokens: usize, has_adapter: bool) -> Case {
    let mut least = (
        SIZE * (tokens * (INPUTS + OUTPUTS) + INPUTS * OUTPUTS),
        tokens * INPUTS * OUTPUTS,
    );
    if has_adapter {
        least.0 += Adapter::least_bytes(tokens);
        least.1 += Adapter::multiply_adds(tokens);
    }
    let prepare = move |cuda: &Cuda| -> Result<super::case::Work> {
        let x = activations(cuda, &[tokens, INPUTS])?;
        let weight = activations(cuda, &[OUTPUTS, INPUTS])?;
        let mut adapter = Adapter::new(cuda, tokens)?;
        let mut y = zeros(cuda, BF16, &[tokens, OUTPUTS])?;
        Ok(Box::new(move |cuda| {
            let lora = LoraForward {
                a: adapter.a.view(),
                b: adapter.b.view(),
                scale: FACTOR,
                dropout: dropout(&adapter.keys),
                xa: adapter.between.view_mut(),
            };
            let args = Forward {
                factor: 1.0,
                x: x.view(),
                weight: Elements::Float(weight.view()),
                bias: None,
                lora: has_adapter.then_some(lora),
                y: y.view_mut(),
                shape: sizes(tokens),
            };
            Ok(cuda.linear_forward(args.checked()?)?)
        }))
    };
    case(("forward", has_adapter), tokens, least, Box::new(prepare))
}

/// The weight is decoded as a whole before the product, which is not part of the least.
fn forward_nf4(tokens: usize) -> Case {
    let weights = INPUTS * OUTPUTS;
    let blocks = weights / BLOCK;
    let least = (
        SIZE * tokens * (INPUTS + OUTPUTS) + weights / 2 + 4 * blocks,
        tokens * weights,
    );
    let prepare = move |cuda: &Cuda| -> Result<super::case::Work> {
        let x = activations(cuda, &[tokens, INPUTS])?;
        let codes = bytes(cuda, &[weights / 2])?;
        let scales = positive(cuda, &[blocks])?;
        let mut y = zeros(cuda, BF16, &[tokens, OUTPUTS])?;
        Ok(Box::new(move |cuda| {
            let args = Forward {
                factor: 1.0,
                x: x.view(),
                weight: Elements::Nf4(nf4::Weight {
                    codes: codes.view(),
                    scales: Scales::Plain(scales.view()),
                }),
                bias: None,
                lora: None,
                y: y.view_mut(),
                shape: sizes(tokens),
            };
            Ok(cuda.linear_forward(args.checked()?)?)
        }))
    };
    case(("forward, NF4", false), tokens, least, Box::new(prepare))
}

fn backward_input(tokens: usize) -> Case {
    let least = (
        SIZE * (tokens * (INPUTS + OUTPUTS) + INPUTS * OUTPUTS) + Adapter::least_bytes(tokens),
        tokens * INPUTS * OUTPUTS + Adapter::multiply_adds(tokens),
    );
    let prepare = move |cuda: &Cuda| -> Result<super::case::Work> {
        let dy = activations(cuda, &[tokens, OUTPUTS])?;
        let weight = activations(cuda, &[OUTPUTS, INPUTS])?;
        let mut adapter = Adapter::new(cuda, tokens)?;
        let mut dx = zeros(cuda, BF16, &[tokens, INPUTS])?;
        Ok(Box::new(move |cuda| {
            let lora = LoraBackwardInput {
                a: adapter.a.view(),
                b: adapter.b.view(),
                scale: FACTOR,
                dropout: dropout(&adapter.keys),
                dyb: adapter.between.view_mut(),
            };
            let args = BackwardInput {
                factor: 1.0,
                dy: dy.view(),
                weight: Elements::Float(weight.view()),
                lora: Some(lora),
                dx: Some(dx.view_mut()),
                accumulate: false,
                shape: sizes(tokens),
            };
            Ok(cuda.linear_backward_input(args.checked()?)?)
        }))
    };
    case(("backward input", true), tokens, least, Box::new(prepare))
}

/// Gradients of the adapter, or of the weight and the bias.
fn backward_weights(tokens: usize, has_adapter: bool) -> Case {
    let operands = SIZE * tokens * (INPUTS + OUTPUTS);
    let least = if has_adapter {
        let factors = 8 * RANK * (INPUTS + OUTPUTS);
        (
            operands + factors + tokens * (2 * 4 * RANK + 8),
            Adapter::multiply_adds(tokens),
        )
    } else {
        (
            operands + 8 * (INPUTS * OUTPUTS + OUTPUTS),
            tokens * INPUTS * OUTPUTS,
        )
    };
    let prepare = move |cuda: &Cuda| -> Result<super::case::Work> {
        let x = activations(cuda, &[tokens, INPUTS])?;
        let dy = activations(cuda, &[tokens, OUTPUTS])?;
        let mut dweight = zeros(cuda, F32, &[OUTPUTS, INPUTS])?;
        let mut dbias = zeros(cuda, F32, &[OUTPUTS])?;
        let mut adapter = Adapter::new(cuda, tokens)?;
        let dyb = floats(cuda, &[tokens, RANK])?;
        Ok(Box::new(move |cuda| {
            let lora = LoraBackwardWeights {
                scale: FACTOR,
                dropout: dropout(&adapter.keys),
                xa: adapter.between.view(),
                dyb: dyb.view(),
                da: adapter.a.view_mut(),
                db: adapter.b.view_mut(),
            };
            let args = BackwardWeights {
                factor: 1.0,
                x: x.view(),
                dy: dy.view(),
                dweight: (!has_adapter).then_some(dweight.view_mut()),
                dbias: (!has_adapter).then_some(dbias.view_mut()),
                lora: has_adapter.then_some(lora),
                shape: sizes(tokens),
            };
            Ok(cuda.linear_backward_weights(args.checked()?)?)
        }))
    };
    let name = if has_adapter {
        "backward weights"
    } else {
        "backward weights, bias"
    };
    case((name, has_adapter), tokens, least, Box::new(prepare))
}
