//! Converts elements to another type, as for a weight that is stored in f32.

use super::case::{Case, Scale, activations, floats, zeros};
use tightrope_device::DType::{BF16, F32};
use tightrope_kernels::{Check, cast};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let elements = scale.pick(1 << 20, 4096 * 14_336);
    [(F32, BF16), (BF16, F32)]
        .map(|(from, to)| Case {
            name: format!("cast, {from} to {to}"),
            shape: elements.to_string(),
            elements,
            least_bytes: (from.size() + to.size()) * elements,
            least_multiply_adds: 0,
            prepare: Box::new(move |cuda| {
                let source = match from {
                    F32 => floats(cuda, &[elements])?,
                    _ => activations(cuda, &[elements])?,
                };
                let mut result = zeros(cuda, to, &[elements])?;
                Ok(Box::new(move |cuda| {
                    let args = cast::Cast {
                        from: source.view(),
                        to: result.view_mut(),
                        elements,
                    };
                    Ok(cast::cast(cuda, args.checked()?)?)
                }))
            }),
        })
        .into()
}
