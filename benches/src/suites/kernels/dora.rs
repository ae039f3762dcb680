//! What DoRA needs besides products, for one linear layer.

use super::case::{Case, Scale, activations, floats, zeros};
use tightrope_device::DType::{BF16, F32};
use tightrope_kernels::{
    Check,
    dora::{Dora, RowNorms, ScaleColumns, ScaleColumnsBackward},
    product::Start,
};

const COLUMNS: usize = 4096;
const RANK: usize = 16;
/// Sizes of bf16 and f32 in bytes.
const SIZES: [usize; 2] = [2, 4];

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let rows = scale.tokens(64);
    vec![forward(rows), backward(rows), norms()]
}

fn forward(rows: usize) -> Case {
    let elements = rows * COLUMNS;
    Case {
        name: "dora gain, forward".into(),
        shape: format!("{rows} × {COLUMNS}"),
        elements,
        least_bytes: 2 * elements * SIZES[0] + COLUMNS * SIZES[1],
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let (z, gain) = (activations(cuda, &[elements])?, floats(cuda, &[COLUMNS])?);
            let mut y = zeros(cuda, BF16, &[elements])?;
            Ok(Box::new(move |cuda| {
                let args = ScaleColumns {
                    z: z.view(),
                    gain: Some(gain.view()),
                    alpha: 1.0,
                    start: Start::Zero,
                    y: y.view_mut(),
                    rows,
                    columns: COLUMNS,
                };
                Ok(cuda.scale_columns(args.checked()?)?)
            }))
        }),
    }
}

fn backward(rows: usize) -> Case {
    let elements = rows * COLUMNS;
    Case {
        name: "dora gain, backward".into(),
        shape: format!("{rows} × {COLUMNS}"),
        elements,
        least_bytes: 3 * elements * SIZES[0] + 4 * COLUMNS * SIZES[1],
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let dy = activations(cuda, &[elements])?;
            let z = activations(cuda, &[elements])?;
            let (gain, norm) = (floats(cuda, &[COLUMNS])?, floats(cuda, &[COLUMNS])?);
            let mut dz = zeros(cuda, BF16, &[elements])?;
            let mut dmagnitude = zeros(cuda, F32, &[COLUMNS])?;
            Ok(Box::new(move |cuda| {
                let args = ScaleColumnsBackward {
                    dy: dy.view(),
                    z: z.view(),
                    gain: gain.view(),
                    norm: norm.view(),
                    dz: dz.view_mut(),
                    dmagnitude: dmagnitude.view_mut(),
                    rows,
                    columns: COLUMNS,
                };
                Ok(cuda.scale_columns_backward(args.checked()?)?)
            }))
        }),
    }
}

fn norms() -> Case {
    let elements = COLUMNS * RANK;
    Case {
        name: "dora norms".into(),
        shape: format!("{COLUMNS}, rank {RANK}"),
        elements,
        least_bytes: (2 * elements + RANK * RANK + 4 * COLUMNS) * SIZES[1],
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let b = floats(cuda, &[COLUMNS, RANK])?;
            let u = floats(cuda, &[RANK, COLUMNS])?;
            let c = floats(cuda, &[RANK, RANK])?;
            let (squares, magnitude) = (floats(cuda, &[COLUMNS])?, floats(cuda, &[COLUMNS])?);
            let mut norm = zeros(cuda, F32, &[COLUMNS])?;
            let mut gain = zeros(cuda, F32, &[COLUMNS])?;
            Ok(Box::new(move |cuda| {
                let args = RowNorms {
                    squares: squares.view(),
                    b: b.view(),
                    u: u.view(),
                    c: c.view(),
                    magnitude: magnitude.view(),
                    scale: 2.0,
                    norm: norm.view_mut(),
                    gain: gain.view_mut(),
                    outputs: COLUMNS,
                    rank: RANK,
                };
                Ok(cuda.row_norms(args.checked()?)?)
            }))
        }),
    }
}
