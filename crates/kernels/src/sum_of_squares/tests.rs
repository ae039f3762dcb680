//! The sum of squares against a plain f64 sum; order, threads, what is not finite.

use super::*;
use tightrope_device::Cpu;
use tightrope_testkit::Random;

const LENGTHS: [usize; 11] = [
    0, 1, 15, 16, 17, 16_383, 16_384, 16_385, 65_536, 65_537, 300_001,
];

fn sum(cpu: &Cpu, values: &[f32]) -> f64 {
    let x = Tensor::from_slice(cpu, &[values.len()], values).unwrap();
    cpu.sum_of_squares(Sum { x: &x }.checked().unwrap())
        .unwrap()
}

#[test]
fn the_sum_is_right_and_the_same_for_any_number_of_threads() {
    let cpus = [1, 2, 3].map(|threads| Cpu::new(threads).unwrap());
    for length in LENGTHS {
        let values = Random::new(length as u64).normal(length, 2.0);
        let expected: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
        let got = sum(&cpus[0], &values);
        // All terms are positive and squares of f32 are exact in f64: one rounding per addition.
        let close = (got - expected).abs() <= length as f64 * f64::EPSILON * expected;
        assert!(close, "{length}: {got} {expected}");
        for cpu in &cpus[1..] {
            assert_eq!(sum(cpu, &values).to_bits(), got.to_bits());
        }
    }
}

#[test]
fn it_is_finite_exactly_when_every_element_is() {
    let cpu = Cpu::new(2).unwrap();
    for length in [1, 17, 16_385, 70_000] {
        assert!(sum(&cpu, &vec![f32::MAX; length]).is_finite());
        assert!(sum(&cpu, &vec![1e-45; length]) > 0.0);
        for place in [0, length / 2, length - 1] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.0; length];
                values[place] = bad;
                assert!(!sum(&cpu, &values).is_finite());
            }
        }
    }
}

#[test]
fn another_type_is_refused() {
    let x = Tensor::zeros(&Cpu::new(1).unwrap(), DType::BF16, &[3]).unwrap();
    let error = Sum { x: &x }.check().unwrap_err();
    assert!(matches!(
        error,
        KernelError::DType {
            operand: "x",
            got: DType::BF16,
            ..
        }
    ));
}
