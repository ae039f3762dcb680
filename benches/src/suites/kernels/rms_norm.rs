//! RMSNorm over the hidden size and over each head.

use super::case::{Case, Scale, activations, floats, zeros};
use tightrope_device::DType::{BF16, F32};
use tightrope_kernels::{
    Check,
    rms_norm::{Backward, Forward, Residual, RmsNorm},
};

const HIDDEN: usize = 4096;
const HEADS: usize = 32;
const HEAD: usize = 128;
/// Size of bf16 in bytes.
const SIZE: usize = 2;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    // The weight's gradient has up to 512 partial sums, whatever the number of tokens, so that
    // their share grows with fewer tokens.
    let heads = (scale.tokens(128) * HEADS, HEAD);
    vec![
        forward((scale.tokens(256), HIDDEN), true),
        backward((scale.tokens(1024), HIDDEN), true),
        forward(heads, false),
        backward(heads, false),
    ]
}

fn forward((rows, dim): (usize, usize), residual: bool) -> Case {
    let elements = rows * dim;
    let operands = if residual { 4 } else { 2 };
    Case {
        name: format!(
            "rms_norm forward{}",
            if residual { ", residual" } else { "" }
        ),
        shape: format!("{rows} × {dim}"),
        elements,
        least_bytes: operands * elements * SIZE + 4 * (rows + dim),
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let shape = [rows, dim];
            let (x, add) = (activations(cuda, &shape)?, activations(cuda, &shape)?);
            let weight = floats(cuda, &[dim])?;
            let (mut sum, mut y) = (zeros(cuda, BF16, &shape)?, zeros(cuda, BF16, &shape)?);
            let mut rstd = zeros(cuda, F32, &[rows])?;
            Ok(Box::new(move |cuda| {
                let args = Forward {
                    x: x.view(),
                    residual: residual.then_some(Residual {
                        add: add.view(),
                        sum: sum.view_mut(),
                    }),
                    weight: weight.view(),
                    plus_one: false,
                    eps: 1e-5,
                    y: y.view_mut(),
                    rstd: rstd.view_mut(),
                    rows,
                    dim,
                };
                Ok(cuda.rms_norm_forward(args.checked()?)?)
            }))
        }),
    }
}

/// The weight is trained.
fn backward((rows, dim): (usize, usize), accumulate: bool) -> Case {
    let elements = rows * dim;
    let operands = if accumulate { 4 } else { 3 };
    Case {
        name: format!(
            "rms_norm backward{}",
            if accumulate { ", accumulating" } else { "" }
        ),
        shape: format!("{rows} × {dim}"),
        elements,
        least_bytes: operands * elements * SIZE + 4 * (rows + 3 * dim),
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let shape = [rows, dim];
            let (dy, x) = (activations(cuda, &shape)?, activations(cuda, &shape)?);
            let (rstd, weight) = (floats(cuda, &[rows])?, floats(cuda, &[dim])?);
            let (mut dx, mut dweight) = (zeros(cuda, BF16, &shape)?, zeros(cuda, F32, &[dim])?);
            Ok(Box::new(move |cuda| {
                let args = Backward {
                    dy: dy.view(),
                    x: x.view(),
                    rstd: rstd.view(),
                    weight: weight.view(),
                    plus_one: false,
                    dx: dx.view_mut(),
                    accumulate,
                    dweight: Some(dweight.view_mut()),
                    rows,
                    dim,
                };
                Ok(cuda.rms_norm_backward(args.checked()?)?)
            }))
        }),
    }
}
