//! Decodes NF4 weights to bf16, with plain and with quantised scales.

use super::case::{Case, Scale, bytes, positive, zeros};
use tightrope_device::DType::BF16;
use tightrope_kernels::{
    Check,
    nf4::{BLOCK, Dequantize, Nf4, SCALE_BLOCK, Scales, Weight},
};

/// Size of bf16 in bytes.
const SIZE: usize = 2;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let elements = scale.pick(1 << 20, 4096 * 14_336);
    vec![case(elements, false), case(elements, true)]
}

fn case(elements: usize, double: bool) -> Case {
    let blocks = elements.div_ceil(BLOCK);
    let groups = blocks.div_ceil(SCALE_BLOCK);
    let scales = if double {
        blocks + 4 * groups
    } else {
        4 * blocks
    };
    Case {
        name: format!(
            "nf4 dequantize{}",
            if double { ", scales quantised" } else { "" }
        ),
        shape: elements.to_string(),
        elements,
        least_bytes: elements / 2 + elements * SIZE + scales,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let codes = bytes(cuda, &[elements / 2])?;
            let (scale_codes, absmax) = (bytes(cuda, &[blocks])?, positive(cuda, &[groups])?);
            let plain = positive(cuda, &[blocks])?;
            let mut y = zeros(cuda, BF16, &[elements])?;
            Ok(Box::new(move |cuda| {
                let scales = if double {
                    Scales::Quantized {
                        codes: scale_codes.view(),
                        absmax: absmax.view(),
                        offset: 1.0,
                    }
                } else {
                    Scales::Plain(plain.view())
                };
                let codes = &codes;
                let args = Dequantize {
                    weight: Weight {
                        codes: codes.view(),
                        scales,
                    },
                    y: y.view_mut(),
                    elements,
                };
                Ok(cuda.nf4_dequantize(args.checked()?)?)
            }))
        }),
    }
}
