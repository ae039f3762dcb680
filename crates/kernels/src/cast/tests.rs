//! Conversions against those of the `half` crate, bit by bit.

use super::*;
use crate::{
    Check,
    product::{Prepared, Product as _},
};
use half::{bf16, f16};
use tightrope_device::{
    Cuda, DType, Device, Tensor,
    cuda::{Matrix, MatrixMut, Product, Varying},
};
use tightrope_testkit::{Random, cuda, tensor};

const STORED: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
const PRODUCTS: [DType; 2] = [DType::F32, DType::BF16];

/// The converted elements, read back by way of a product with one.
fn converted(device: &Cuda, tensor: &Tensor<Cuda>, len: usize, dtype: DType) -> Vec<f32> {
    let converted = device.prepare(tensor.view(), len, dtype).unwrap();
    let one = tightrope_testkit::tensor(device, dtype, &[1], &[1.0]);
    let mut result = Tensor::zeros(device, DType::F32, &[len]).unwrap();
    device
        .matmul(Product {
            a: Matrix::of(converted.view(), 1),
            b: Matrix::of(one.view(), 1),
            c: MatrixMut::of(result.view_mut(), 1),
            bias: None,
            m: len,
            n: 1,
            k: 1,
            alpha: 1.0,
            accumulate: false,
            varying: Varying::Rows,
        })
        .unwrap();
    result.to_f32_vec().unwrap()
}

fn round(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

#[test]
fn every_pair_of_types_rounds_to_nearest() {
    let device = cuda();
    let mut random = Random::new(3);
    let mut values = random.normal(2060, 10.0);
    let special = [
        0.0,
        -0.0,
        1.0 + f32::EPSILON,
        1.0 + 2f32.powi(-9),
        1.0 + 3.0 * 2f32.powi(-9),
        1.0 + 2f32.powi(-12),
        65_519.0,
        65_520.0,
        -1e6,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        2f32.powi(-24),
        2f32.powi(-25),
        3e-8,
        1e-40,
    ];
    for (i, value) in special.into_iter().enumerate() {
        values[i * 101] = value;
    }
    for (from, to) in STORED
        .iter()
        .flat_map(|&from| PRODUCTS.map(|to| (from, to)))
    {
        for len in [0, 1, 7, 8, 9, 2060] {
            let stored = tensor(device, from, &[values.len()], &values);
            let got = converted(device, &stored, len, to);
            for (got, &value) in got.iter().zip(&values) {
                let expected = round(round(value, from), to);
                let same = got.to_bits() == expected.to_bits()
                    || got.is_nan() && expected.is_nan()
                    // Adding to zero, the product loses the sign.
                    || *got == 0.0 && expected == 0.0;
                assert!(same, "{value} {from} {to}: {got} {expected}");
            }
        }
    }
    device.synchronize().unwrap();
}

#[test]
fn only_what_is_stored_otherwise_is_copied() {
    let stored = tensor(cuda(), DType::BF16, &[3], &[1.0, 2.0, 3.0]);
    for dtype in PRODUCTS {
        let prepared = cuda().prepare(stored.view(), 3, dtype).unwrap();
        let is_copied = matches!(prepared, Prepared::Copy(_));
        assert_eq!(is_copied, dtype != DType::BF16);
    }
}

#[test]
fn a_tensor_is_cast_into_another_and_what_does_not_fit_is_refused() {
    let device = cuda();
    let from = tensor(device, DType::F32, &[3], &[1.0, -2.5, 3.0]);
    let convert = |to: &mut Tensor<Cuda>, elements| {
        let (from, to) = (from.view(), to.view_mut());
        let args = Cast { from, to, elements };
        cast(device, args.checked()?)
    };
    let mut to = tensor(device, DType::BF16, &[3], &[7.0; 3]);
    convert(&mut to, 2).unwrap();
    assert_eq!(to.to_f32_vec().unwrap(), [1.0, -2.5, 7.0]);
    assert!(convert(&mut to, 4).is_err());
    let mut same = Tensor::zeros(device, DType::F32, &[3]).unwrap();
    assert!(convert(&mut same, 3).is_err());
    for dtype in [DType::U32, DType::F16] {
        let mut other = Tensor::zeros(device, dtype, &[3]).unwrap();
        assert!(convert(&mut other, 3).is_err());
    }
}
