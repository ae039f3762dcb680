//! AdamW with 8-bit moments for one parameter.

use super::case::{Case, Scale, bytes, floats, positive};
use tightrope_kernels::{
    Check,
    adamw_8bit::{AdamW8bit, BLOCK, Hyperparameters, Moment, Update},
};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let elements = scale.pick(1 << 20, 4096 * 14_336);
    let blocks = elements.div_ceil(BLOCK);
    vec![Case {
        name: "adamw_8bit update".into(),
        shape: elements.to_string(),
        elements,
        least_bytes: 16 * (elements + blocks),
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let (mut weight, gradient) = (floats(cuda, &[elements])?, floats(cuda, &[elements])?);
            let mut m = [bytes(cuda, &[elements])?, positive(cuda, &[blocks])?];
            let mut v = [bytes(cuda, &[elements])?, positive(cuda, &[blocks])?];
            Ok(Box::new(move |cuda| {
                let ([m_codes, m_absmax], [v_codes, v_absmax]) = (&mut m, &mut v);
                let args = Update {
                    weight: weight.view_mut(),
                    gradient: gradient.view(),
                    m: Moment {
                        codes: m_codes.view_mut(),
                        absmax: m_absmax.view_mut(),
                    },
                    v: Moment {
                        codes: v_codes.view_mut(),
                        absmax: v_absmax.view_mut(),
                    },
                    hyperparameters: Hyperparameters {
                        learning_rate: 1e-4,
                        beta1: 0.9,
                        beta2: 0.999,
                        eps: 1e-8,
                        weight_decay: 0.01,
                        step: 1,
                        gradient_scale: 1.0,
                    },
                };
                Ok(cuda.adamw_8bit_update(args.checked()?)?)
            }))
        }),
    }]
}
