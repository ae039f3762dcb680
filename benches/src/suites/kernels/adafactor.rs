//! Adafactor for one matrix.

use super::case::{Case, Scale, floats, zeros};
use tightrope_device::DType::F32;
use tightrope_kernels::{
    Check,
    adafactor::{Adafactor, Hyperparameters, SecondMoment, Update},
};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let (rows, columns) = (scale.pick(1024, 14_336), scale.pick(1024, 4096));
    let elements = rows * columns;
    vec![Case {
        name: "adafactor update".into(),
        shape: format!("{rows} × {columns}"),
        elements,
        least_bytes: 24 * elements,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let (mut weight, gradient) = (floats(cuda, &[elements])?, floats(cuda, &[elements])?);
            let mut row = zeros(cuda, F32, &[rows])?;
            let mut column = zeros(cuda, F32, &[columns])?;
            Ok(Box::new(move |cuda| {
                let args = Update {
                    weight: weight.view_mut(),
                    gradient: gradient.view(),
                    v: SecondMoment::Factored {
                        rows: row.view_mut(),
                        columns: column.view_mut(),
                    },
                    m: None,
                    rows,
                    columns,
                    hyperparameters: Hyperparameters {
                        learning_rate: 1e-4,
                        beta1: 0.0,
                        decay_rate: -0.8,
                        eps: 1e-30,
                        clip_threshold: 1.0,
                        weight_decay: 0.01,
                        step: 1,
                        gradient_scale: 1.0,
                    },
                };
                Ok(cuda.adafactor_update(args.checked()?)?)
            }))
        }),
    }]
}
