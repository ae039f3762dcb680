//! Sums of squares against a plain f64 sum; order, threads, what is not finite.

use super::*;
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_testkit::{Random, cuda};

const LENGTHS: [usize; 11] = [
    0, 1, 15, 16, 17, 16_383, 16_384, 16_385, 65_536, 65_537, 300_001,
];

fn sum<D: SumOfSquares>(device: &D, tensors: &[&[f32]]) -> f64 {
    let of = |values: &&[f32]| Tensor::from_slice(device, &[values.len()], values).unwrap();
    let tensors: Vec<_> = tensors.iter().map(of).collect();
    let tensors: Vec<_> = tensors.iter().map(Tensor::view).collect();
    let args = Sum { tensors: &tensors };
    device.sum_of_squares(args.checked().unwrap()).unwrap()
}

fn values(length: usize) -> Vec<f32> {
    Random::new(length as u64).normal(length, 2.0)
}

/// All terms are positive and squares of f32 are exact in f64: one rounding per addition.
fn assert_is_the_sum(got: f64, tensors: &[&[f32]]) {
    let all = || tensors.iter().copied().flatten();
    let expected: f64 = all().map(|&x| f64::from(x).powi(2)).sum();
    let close = (got - expected).abs() <= all().count() as f64 * f64::EPSILON * expected;
    assert!(close, "{got} {expected}");
}

fn compare_with_the_plain_sum<D: SumOfSquares>(device: &D) {
    let all = LENGTHS.map(values);
    for values in &all {
        assert_is_the_sum(sum(device, &[values]), &[values]);
    }
    let all = all.each_ref().map(|values| &values[..]);
    let together = sum(device, &all);
    assert_is_the_sum(together, &all);
    assert_eq!(sum(device, &all).to_bits(), together.to_bits());
    assert_eq!(sum(device, &[]), 0.0);
    assert_eq!(
        sum(device, &[&[], &[], &[3.0], &[], &[4.0, -12.0], &[]]),
        169.0
    );
}

#[test]
fn the_cpu_adds_up_every_tensor() {
    compare_with_the_plain_sum(&Cpu::new(2).unwrap());
}

#[test]
fn cuda_adds_up_every_tensor() {
    compare_with_the_plain_sum(cuda());
}

#[test]
fn cuda_adds_up_more_tensors_than_the_last_block_has_threads() {
    let values: Vec<Vec<f32>> = (0..1100).map(|i| values(i % 7)).collect();
    let values: Vec<&[f32]> = values.iter().map(|values| &values[..]).collect();
    assert_is_the_sum(sum(cuda(), &values), &values);
}

#[test]
fn the_cpu_adds_tensors_one_after_the_other_for_any_number_of_threads() {
    let cpus = [1, 2, 3].map(|threads| Cpu::new(threads).unwrap());
    let all = LENGTHS.map(values);
    let one_by_one: f64 = all.iter().map(|values| sum(&cpus[0], &[values])).sum();
    let all = all.each_ref().map(|values| &values[..]);
    for cpu in &cpus {
        assert_eq!(sum(cpu, &all).to_bits(), one_by_one.to_bits());
    }
}

fn check_each<D: SumOfSquares>(device: &D) {
    let all = LENGTHS.map(values);
    let of = |values: &Vec<f32>| Tensor::from_slice(device, &[values.len()], values).unwrap();
    let rounded = |values: &Vec<f32>| {
        let values: Vec<_> = values.iter().map(|&x| half::bf16::from_f32(x)).collect();
        Tensor::from_slice(device, &[values.len()], &values).unwrap()
    };
    let tensors: Vec<_> = all.iter().map(of).chain(all.iter().map(rounded)).collect();
    let views: Vec<_> = tensors.iter().map(Tensor::view).collect();
    let args = Sum { tensors: &views };
    let sums = device.sums_of_squares(args.checked().unwrap()).unwrap();
    assert_eq!(sums.len(), tensors.len());
    for (sum, tensor) in sums.iter().zip(&tensors) {
        assert_is_the_sum(*sum, &[&tensor.to_f32_vec().unwrap()]);
    }
    let none = Sum { tensors: &[] };
    let none = device.sums_of_squares(none.checked().unwrap()).unwrap();
    assert!(none.is_empty());
}

#[test]
fn each_tensor_in_f32_and_bf16_has_its_sum() {
    check_each(&Cpu::new(2).unwrap());
    check_each(cuda());
}

#[test]
fn it_is_finite_exactly_when_every_element_is() {
    check_what_is_not_finite(&Cpu::new(2).unwrap());
    check_what_is_not_finite(cuda());
}

fn check_what_is_not_finite<D: SumOfSquares>(device: &D) {
    for length in [1, 17, 16_385, 70_001] {
        let sum = |values: &[f32]| sum(device, &[&[1.0], values, &[2.0]]);
        assert!(sum(&vec![f32::MAX; length]).is_finite());
        for place in [0, length / 2, length - 1] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.0; length];
                values[place] = bad;
                assert!(!sum(&values).is_finite());
            }
        }
    }
    assert!(sum(device, &[&[1e-45]]) > 0.0);
}

#[test]
fn another_type_is_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype| Tensor::zeros(&cpu, dtype, &[3]).unwrap();
    let tensors = [zeros(DType::F32), zeros(DType::F16)];
    let tensors = tensors.each_ref().map(Tensor::view);
    let error = Sum { tensors: &tensors }.check().unwrap_err();
    assert!(matches!(
        error,
        KernelError::DType {
            operand: "tensors",
            got: DType::F16,
            ..
        }
    ));
}
