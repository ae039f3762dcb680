//! The sum of squares of one gradient.

use super::case::{Case, Scale, floats};
use anyhow::ensure;
use tightrope_kernels::{
    Check,
    sum_of_squares::{Sum, SumOfSquares},
};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let elements = scale.pick(1 << 20, 4096 * 14_336);
    vec![Case {
        name: "sum_of_squares".into(),
        shape: elements.to_string(),
        elements,
        least_bytes: 4 * elements,
        least_multiply_adds: 0,
        prepare: Box::new(move |cuda| {
            let tensor = floats(cuda, &[elements])?;
            // Each call waits for the GPU, and its time includes that.
            Ok(Box::new(move |cuda| {
                let args = Sum {
                    tensors: &[tensor.view()],
                };
                let sum = cuda.sum_of_squares(args.checked()?)?;
                ensure!(sum > 0.0, "the sum is {sum}");
                Ok(())
            }))
        }),
    }]
}
