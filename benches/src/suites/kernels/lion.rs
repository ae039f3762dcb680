//! Lion for one parameter.

use super::case::{Case, Scale, floats, zeros};
use tightrope_device::DType::F32;
use tightrope_kernels::{
    Check,
    lion::{Hyperparameters, Lion, Update},
};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let elements = scale.pick(1 << 20, 4096 * 14_336);
    vec![Case {
        name: "lion update".into(),
        shape: elements.to_string(),
        elements,
        least_bytes: 20 * elements,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let (mut weight, gradient) = (floats(cuda, &[elements])?, floats(cuda, &[elements])?);
            let mut m = zeros(cuda, F32, &[elements])?;
            Ok(Box::new(move |cuda| {
                let args = Update {
                    weight: weight.view_mut(),
                    gradient: gradient.view(),
                    m: m.view_mut(),
                    hyperparameters: Hyperparameters {
                        learning_rate: 1e-4,
                        beta1: 0.9,
                        beta2: 0.99,
                        weight_decay: 0.01,
                        step: 1,
                        gradient_scale: 1.0,
                    },
                };
                Ok(cuda.lion_update(args.checked()?)?)
            }))
        }),
    }]
}
