//! The elementwise part of Muon for one parameter; its products are those of `linear`.

use super::case::{Case, Scale, floats, zeros};
use tightrope_device::DType::F32;
use tightrope_kernels::{
    Check,
    muon::{Hyperparameters, Momentum, Muon},
};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let elements = scale.pick(1 << 20, 4096 * 14_336);
    vec![Case {
        name: "muon momentum".into(),
        shape: elements.to_string(),
        elements,
        least_bytes: 24 * elements,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let mut weight = floats(cuda, &[elements])?;
            let mut gradient = floats(cuda, &[elements])?;
            let mut m = zeros(cuda, F32, &[elements])?;
            Ok(Box::new(move |cuda| {
                let args = Momentum {
                    weight: weight.view_mut(),
                    gradient: gradient.view_mut(),
                    m: m.view_mut(),
                    hyperparameters: Hyperparameters {
                        learning_rate: 1e-4,
                        momentum: 0.95,
                        nesterov: true,
                        weight_decay: 0.1,
                        gradient_scale: 1.0,
                    },
                };
                Ok(cuda.muon_momentum(args.checked()?)?)
            }))
        }),
    }]
}
