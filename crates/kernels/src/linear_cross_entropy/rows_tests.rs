//! Gradients of some rows of the weight against those of all.

use super::{
    tests::{ACTIVATIONS, BEFORE, Case},
    *,
};
use tightrope_device::{Cpu, Tensor};
use tightrope_testkit::{cuda_with_small_limits, tensor};

impl Case {
    /// `dweight` for these rows of the weight alone.
    fn of_rows<D: LinearCrossEntropy>(
        &self,
        device: &D,
        rows: &[usize],
    ) -> Result<Vec<f32>, KernelError> {
        let (tokens, hidden, vocabulary) = (self.targets.len(), self.hidden, self.vocabulary);
        let x = tensor(device, self.types.0, &[tokens, hidden], &self.x);
        let weight = tensor(device, self.types.1, &[vocabulary, hidden], &self.weight);
        let targets = Tensor::from_slice(device, &[tokens], &self.targets)?;
        let weights = Tensor::from_slice(device, &[tokens], &self.weights)?;
        let mut losses = Tensor::zeros(device, DType::F32, &[tokens])?;
        let mut dx = Tensor::zeros(device, self.types.0, &[tokens, hidden])?;
        let before = vec![BEFORE; rows.len() * hidden];
        let mut dweight = tensor(device, DType::F32, &[rows.len(), hidden], &before);
        let args = ForwardBackward {
            forward: Forward {
                x: x.view(),
                weight: weight.view(),
                lora: None,
                targets: targets.view(),
                logit_scale: self.logit_scale,
                softcap: self.softcap,
                losses: losses.view_mut(),
                tokens,
                hidden,
                vocabulary,
            },
            weights: weights.view(),
            dx: dx.view_mut(),
            dweight: Some(dweight.view_mut()),
            rows: Some(rows),
            dlora: None,
        };
        device.linear_cross_entropy_forward_backward(args.checked()?)?;
        Ok(dweight.to_f32_vec()?)
    }
}

#[test]
fn some_rows_have_the_gradients_that_all_have() {
    fn compare<D: LinearCrossEntropy>(device: &D, dtype: DType) {
        let mut case = Case::of((dtype, dtype), (90, 24, 301), 2);
        case.softcap = Some(3.0);
        let (expected, errors) = {
            let expected = case.expected();
            let errors = case.errors(&expected);
            (expected, errors)
        };
        for rows in [&[][..], &[300], &[5, 6, 7, 2, 299, 300, 0], &[17, 19]] {
            let got = case.of_rows(device, rows).unwrap();
            assert_eq!(got.len(), rows.len() * 24);
            for (i, got) in got.iter().enumerate() {
                let of = rows[i / 24] * 24 + i % 24;
                let close = (f64::from(*got) - expected[2][of]).abs() <= errors[2][of];
                assert!(close, "{rows:?} [{i}]: {got}, {}", expected[2][of]);
            }
        }
        let error = case.of_rows(device, &[301]).unwrap_err().to_string();
        assert!(error.contains("below the vocabulary"), "{error}");
    }
    for dtype in ACTIVATIONS {
        compare(&Cpu::new(2).unwrap(), dtype);
    }
    for dtype in ACTIVATIONS {
        compare(cuda_with_small_limits(), dtype);
    }
}
