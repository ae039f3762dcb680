//! Gated linear units over the intermediate size.

use super::case::{Case, Scale, activations, zeros};
use tightrope_device::DType::BF16;
use tightrope_kernels::{
    Check,
    glu::{Activation, Backward, Forward, Glu},
};

const INTERMEDIATE: usize = 14_336;
/// Size of bf16 in bytes.
const SIZE: usize = 2;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let tokens = scale.tokens(64);
    let all = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf];
    all.into_iter()
        .flat_map(|activation| [forward(tokens, activation), backward(tokens, activation)])
        .collect()
}

fn forward(tokens: usize, activation: Activation) -> Case {
    let elements = tokens * INTERMEDIATE;
    Case {
        name: format!("glu forward, {activation:?}"),
        shape: format!("{tokens} × {INTERMEDIATE}"),
        elements,
        least_bytes: 3 * elements * SIZE,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let (gate, up) = (
                activations(cuda, &[elements])?,
                activations(cuda, &[elements])?,
            );
            let mut y = zeros(cuda, BF16, &[elements])?;
            Ok(Box::new(move |cuda| {
                let args = Forward {
                    gate: gate.view(),
                    up: up.view(),
                    y: y.view_mut(),
                    activation,
                    elements,
                };
                Ok(cuda.glu_forward(args.checked()?)?)
            }))
        }),
    }
}

/// The operation works in place, so the numbers change between calls; the work does not depend on
/// them.
fn backward(tokens: usize, activation: Activation) -> Case {
    let elements = tokens * INTERMEDIATE;
    Case {
        name: format!("glu backward, {activation:?}"),
        shape: format!("{tokens} × {INTERMEDIATE}"),
        elements,
        least_bytes: 6 * elements * SIZE,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let mut gate = activations(cuda, &[elements])?;
            let mut up = activations(cuda, &[elements])?;
            let mut dy = activations(cuda, &[elements])?;
            Ok(Box::new(move |cuda| {
                let args = Backward {
                    gate: gate.view_mut(),
                    up: up.view_mut(),
                    dy: dy.view_mut(),
                    activation,
                    elements,
                };
                Ok(cuda.glu_backward(args.checked()?)?)
            }))
        }),
    }
}
