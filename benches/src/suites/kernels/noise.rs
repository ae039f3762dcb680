//! NEFTune's noise on the embedded tokens.

use super::case::{Case, Scale, activations, floats};
use tightrope_device::Tensor;
use tightrope_kernels::{
    Check,
    noise::{Add, Noise, state},
};

const FEATURES: usize = 4096;
/// Sizes of bf16 and f32 in bytes.
const SIZES: [usize; 2] = [2, 4];

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let rows = scale.tokens(64);
    let elements = rows * FEATURES;
    vec![Case {
        name: "noise".into(),
        shape: format!("{rows} × {FEATURES}"),
        elements,
        least_bytes: 2 * elements * SIZES[0] + 3 * rows * SIZES[1],
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let mut y = activations(cuda, &[elements])?;
            let states: Vec<u32> = (0..rows)
                .flat_map(|row| state(7, [0, row as u32]))
                .collect();
            let states = Tensor::from_slice(cuda, &[rows, 2], &states)?;
            let scales = floats(cuda, &[rows])?;
            Ok(Box::new(move |cuda| {
                let args = Add {
                    y: y.view_mut(),
                    states: states.view(),
                    scales: scales.view(),
                    rows,
                    features: FEATURES,
                };
                Ok(cuda.noise_add(args.checked()?)?)
            }))
        }),
    }]
}
