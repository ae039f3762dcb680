//! Dropout: the same mask everywhere, with the right share and without visible patterns.

use super::super::*;
use super::{ACTIVATIONS, case::Case, cpu};
use crate::product::Mask;
use tightrope_device::Tensor;
use tightrope_testkit::{Random, cuda_with_small_limits, rounded, tensor};

/// `dropout(1)`, computed with an adapter that is the identity, and the same factors of `dx`, whose
/// gradient before the mask is 1.
fn factors<D: Linear>(device: &D, dtype: DType, inputs: usize, keys: &[u32]) -> [Vec<f32>; 2] {
    let tokens = keys.len() / 2;
    let shape = |outputs| Shape {
        tokens,
        inputs,
        outputs,
    };
    let f32s = |shape: &[usize], value: f32| {
        tensor(
            device,
            DType::F32,
            shape,
            &vec![value; shape.iter().product()],
        )
    };
    let ones = |shape: &[usize]| {
        let values = vec![1.0; shape.iter().product()];
        tensor(device, dtype, shape, &values)
    };
    let keys = Tensor::from_slice(device, &[tokens, 2], keys).unwrap();
    let dropout = Some(Dropout {
        probability: 0.4,
        salt: u64::MAX - 5,
        keys: keys.view(),
    });
    let identity: Vec<f32> = (0..inputs * inputs)
        .map(|i| f32::from(u8::from(i % (inputs + 1) == 0)))
        .collect();
    let identity = tensor(device, DType::F32, &[inputs, inputs], &identity);
    let mut xa = f32s(&[tokens, inputs], f32::NAN);
    let b = f32s(&[1, inputs], 0.0);
    let mut y = ones(&[tokens, 1]);
    let weight = f32s(&[1, inputs], 0.0);
    let x = ones(&[tokens, inputs]);
    let args = Forward {
        factor: 1.0,
        x: x.view(),
        weight: Elements::Float(weight.view()),
        bias: None,
        lora: Some(LoraForward {
            a: identity.view(),
            b: b.view(),
            scale: 1.0,
            dropout,
            xa: xa.view_mut(),
        }),
        y: y.view_mut(),
        shape: shape(1),
    };
    device.linear_forward(args.checked().unwrap()).unwrap();
    let mut dx = ones(&[tokens, inputs]);
    let a = f32s(&[1, inputs], 1.0);
    let b = f32s(&[1, 1], 1.0);
    let dy = ones(&[tokens, 1]);
    let mut dyb = f32s(&[tokens, 1], 0.0);
    let weight = f32s(&[1, inputs], 0.0);
    let args = BackwardInput {
        factor: 1.0,
        dy: dy.view(),
        weight: Elements::Float(weight.view()),
        lora: Some(LoraBackwardInput {
            a: a.view(),
            b: b.view(),
            scale: 1.0,
            dropout,
            dyb: dyb.view_mut(),
        }),
        dx: Some(dx.view_mut()),
        accumulate: false,
        shape: shape(1),
    };
    device
        .linear_backward_input(args.checked().unwrap())
        .unwrap();
    [xa, dx].map(|t| t.to_f32_vec().unwrap())
}

#[test]
fn every_device_drops_the_same_elements() {
    let mut random = Random::new(9);
    for inputs in [1, 7, 64, 200] {
        let keys: Vec<u32> = (0..262).map(|_| random.bits() as u32).collect();
        let [expected, of_dx] = factors(&cpu(2), DType::F32, inputs, &keys);
        assert_eq!(expected, of_dx);
        assert!(inputs == 1 || expected.contains(&0.0) && expected.contains(&(1.0 / 0.6)));
        for dtype in ACTIVATIONS {
            let expected = rounded(&expected, dtype);
            let on_cuda = factors(cuda_with_small_limits(), dtype, inputs, &keys);
            for [xa, dx] in [on_cuda, factors(&cpu(2), dtype, inputs, &keys)] {
                assert_eq!(xa, expected);
                assert_eq!(dx, expected);
            }
        }
    }
}

#[test]
fn dropout_keeps_the_right_share_without_visible_order() {
    let (tokens, inputs) = (200, 500);
    for probability in [0.05f32, 0.5, 0.9] {
        let case = Case::new((tokens, inputs, 1, 1), probability);
        let mask = case.mask();
        let (n, p) = ((tokens * inputs) as f64, f64::from(probability));
        let kept = mask.iter().filter(|&&m| m != 0.0).count() as f64;
        // Five standard deviations of a binomial; the inputs are fixed, so this never flickers.
        let bound = 5.0 * (n * p * (1.0 - p)).sqrt();
        assert!(
            (kept - n * (1.0 - p)).abs() <= bound,
            "{kept} of {n} at {p}"
        );
        assert!(
            mask.iter()
                .all(|&m| m == 0.0 || (m * (1.0 - p) - 1.0).abs() < 1e-6)
        );
        // Neighbours in a row, in a column, and across the diagonal are independent.
        for lag in [1, 2, 16, inputs, inputs + 1] {
            let both = mask
                .windows(lag + 1)
                .filter(|w| w[0] != 0.0 && w[lag] != 0.0)
                .count() as f64;
            let (n, q) = (n - lag as f64, (1.0 - p) * (1.0 - p));
            // Twice the binomial deviation, because pairs overlap.
            let bound = 10.0 * (n * q * (1.0 - q)).sqrt();
            assert!(
                (both - n * q).abs() <= bound,
                "lag {lag}: {both} of {n} at {p}"
            );
        }
    }
}

#[test]
fn dropout_differs_by_salt_and_follows_the_token() {
    let cpu = cpu(1);
    let row = |salt, keys: [u32; 2]| {
        let keys = Tensor::from_slice(&cpu, &[1, 2], &keys).unwrap();
        let dropout = Some(Dropout {
            probability: 0.5,
            salt,
            keys: keys.view(),
        });
        let mut values = vec![1f32; 64];
        let mask = Mask::new(&dropout, 1).unwrap().unwrap();
        crate::product::matmul::Gate::apply(&mask, 0, 0..64, &mut values);
        // The same columns in two parts.
        let mut parts = vec![1f32; 64];
        crate::product::matmul::Gate::apply(&mask, 0, 0..7, &mut parts[..7]);
        crate::product::matmul::Gate::apply(&mask, 0, 7..64, &mut parts[7..]);
        assert_eq!(values, parts);
        values
    };
    assert_eq!(row(1, [3, 4]), row(1, [3, 4]));
    assert_ne!(row(1, [3, 4]), row(2, [3, 4]));
    assert_ne!(row(1, [3, 4]), row(1, [4, 3]));
    assert_ne!(row(1, [3, 4]), row(1, [3, 5]));
}
