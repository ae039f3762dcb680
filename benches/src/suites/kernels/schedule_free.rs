//! Schedule-free AdamW for one parameter.

use super::case::{Case, Scale, floats, zeros};
use tightrope_device::DType::F32;
use tightrope_kernels::{
    Check,
    schedule_free::{Hyperparameters, ScheduleFree, Update},
};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let elements = scale.pick(1 << 20, 4096 * 14_336);
    vec![Case {
        name: "schedule_free update".into(),
        shape: elements.to_string(),
        elements,
        least_bytes: 28 * elements,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let (mut y, gradient) = (floats(cuda, &[elements])?, floats(cuda, &[elements])?);
            let mut z = zeros(cuda, F32, &[elements])?;
            let mut v = zeros(cuda, F32, &[elements])?;
            Ok(Box::new(move |cuda| {
                let args = Update {
                    y: y.view_mut(),
                    gradient: gradient.view(),
                    z: z.view_mut(),
                    v: v.view_mut(),
                    hyperparameters: Hyperparameters {
                        learning_rate: 1e-4,
                        beta1: 0.9,
                        beta2: 0.999,
                        eps: 1e-8,
                        weight_decay: 0.01,
                        average: 0.1,
                        step: 1,
                        gradient_scale: 1.0,
                    },
                };
                Ok(cuda.schedule_free_update(args.checked()?)?)
            }))
        }),
    }]
}
