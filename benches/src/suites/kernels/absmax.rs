//! Decodes 8-bit weights with one scale per row to bf16.

use super::case::{Case, Scale, bytes, positive, zeros};
use tightrope_device::DType::BF16;
use tightrope_kernels::{
    Check,
    absmax::{Absmax, Dequantize},
};

const COLUMNS: usize = 4096;
/// Size of bf16 in bytes.
const SIZE: usize = 2;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let rows = scale.pick(256, 14_336);
    let elements = rows * COLUMNS;
    vec![Case {
        name: "absmax dequantize".into(),
        shape: format!("{rows} × {COLUMNS}"),
        elements,
        least_bytes: (1 + SIZE) * elements + 4 * rows,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let codes = bytes(cuda, &[rows, COLUMNS])?;
            let absmax = positive(cuda, &[rows])?;
            let mut y = zeros(cuda, BF16, &[rows, COLUMNS])?;
            Ok(Box::new(move |cuda| {
                let args = Dequantize {
                    codes: codes.view(),
                    absmax: absmax.view(),
                    y: y.view_mut(),
                    rows,
                    columns: COLUMNS,
                };
                Ok(cuda.absmax_dequantize(args.checked()?)?)
            }))
        }),
    }]
}
