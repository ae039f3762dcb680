//! AdamW on the CPU: one pass over weight, gradient and both moments.

use super::{AdamW, Update};
use crate::{Checked, KernelError, cpu::block_rows};
use tightrope_device::{Cpu, rows, vectorize};

impl AdamW for Cpu {
    fn adamw_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.into_inner();
        let step = args.step as f64;
        let correction1 = 1.0 - args.beta1.powf(step);
        let correction2 = 1.0 - args.beta2.powf(step);
        // Everything that does not depend on the element is computed in f64 and rounded once.
        let factors = Factors {
            gradient: args.gradient_scale as f32,
            keep: (1.0 - args.learning_rate * args.weight_decay) as f32,
            blend1: (1.0 - args.beta1) as f32,
            beta2: args.beta2 as f32,
            blend2: (1.0 - args.beta2) as f32,
            root: (1.0 / correction2.sqrt()) as f32,
            eps: args.eps as f32,
            rate: (args.learning_rate / correction1) as f32,
        };
        let elements = args.weight.len();
        let parts = (
            rows(args.weight.as_mut_slice()?, 1),
            rows(&args.gradient.as_slice::<f32>()?[..elements], 1),
            rows(&mut args.m.as_mut_slice::<f32>()?[..elements], 1),
            rows(&mut args.v.as_mut_slice::<f32>()?[..elements], 1),
        );
        self.for_each_block(elements, block_rows(1), parts, |_, _, (weight, g, m, v)| {
            update(weight.slice, g.slice, m.slice, v.slice, factors);
        });
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Factors {
    gradient: f32,
    keep: f32,
    blend1: f32,
    beta2: f32,
    blend2: f32,
    root: f32,
    eps: f32,
    rate: f32,
}

vectorize! {
    fn update(weight: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((weight, &g), m), v) in weight.iter_mut().zip(gradient).zip(m).zip(v) {
            let g = f.gradient * g;
            *m = f.blend1.mul_add(g - *m, *m);
            *v = (f.blend2 * g).mul_add(g, f.beta2 * *v);
            let denominator = v.sqrt().mul_add(f.root, f.eps);
            *weight = (*weight * f.keep) - f.rate * (*m / denominator);
        }
    }
}
