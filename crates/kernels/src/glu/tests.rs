//! Gated linear units against the f64 oracle, at all sizes of the gate.

use super::*;
use tightrope_device::{Cpu, DType, IndexWidth, Tensor};
use tightrope_testkit::{Random, cuda, oracle::glu as oracle, rounded, rounding, tensor};

const EPSILON: f64 = f32::EPSILON as f64;
const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf];
/// Blocks have 16,384 elements, and up to four of them stay on one thread.
const LENGTHS: [usize; 8] = [0, 1, 7, 8, 33, 16_385, 65_536, 65_557];

/// Value and slope of the gate.
fn exact(activation: Activation, x: f64) -> (f64, f64) {
    match activation {
        Activation::Silu => (oracle::silu(x), oracle::silu_slope(x)),
        Activation::GeluTanh => (oracle::gelu_tanh(x), oracle::gelu_tanh_slope(x)),
        Activation::GeluErf => (oracle::gelu_erf(x), oracle::gelu_erf_slope(x)),
    }
}

/// Error of the activation itself (docs/numerics.md).
fn value_error(activation: Activation, x: f64, value: f64) -> f64 {
    // Where the sigmoid is subnormal its error is half of the smallest number.
    let smallest = f64::from(f32::MIN_POSITIVE) * EPSILON;
    smallest * x.abs() + relative_error(activation, x, value)
}

fn relative_error(activation: Activation, x: f64, value: f64) -> f64 {
    match activation {
        Activation::Silu => 3.0 * EPSILON * value.abs(),
        // An error of the exponent becomes a relative error of the result.
        Activation::GeluTanh => {
            let exponent = (1.6 * x * (1.0 + 0.045 * x * x)).abs().min(110.0);
            (4.0 + 2.0 * exponent) * EPSILON * value.abs()
        }
        // 1 + erf cancels on the negative side.
        Activation::GeluErf => 2.0 * EPSILON * x.abs(),
    }
}

struct Case {
    dtype: DType,
    gate: Vec<f32>,
    up: Vec<f32>,
    dy: Vec<f32>,
    activation: Activation,
}

impl Case {
    fn new(elements: usize, activation: Activation) -> Self {
        Self::of(DType::F32, elements, activation)
    }

    fn of(dtype: DType, elements: usize, activation: Activation) -> Self {
        let mut random = Random::new(elements as u64);
        let mut gate = random.normal(elements, 3.0);
        let special = [
            0.0, -0.0, 1e-30, -1e-30, 1e-42, 0.92, -0.94, 6.0, -6.0, 17.0, -17.0, 30.0, -30.0,
            87.0, -87.0, 89.0, -89.0, 104.0, -104.0, 1e4, -1e4,
        ];
        for (gate, special) in gate.iter_mut().skip(9).zip(special) {
            *gate = special;
        }
        let mut numbers = || rounded(&random.normal(elements, 1.0), dtype);
        Self {
            dtype,
            gate: rounded(&gate, dtype),
            up: numbers(),
            dy: numbers(),
            activation,
        }
    }

    /// `y`, and then the results of the backward pass: `dgate`, `dup`, `y`.
    fn run<D: Glu>(&self, device: &D) -> [Vec<f32>; 4] {
        let tensor = |values: &[f32]| tensor(device, self.dtype, &[values.len()], values);
        let (mut gate, mut up, mut dy) = (tensor(&self.gate), tensor(&self.up), tensor(&self.dy));
        let mut y = tensor(&vec![f32::NAN; self.gate.len()]);
        let (activation, elements) = (self.activation, self.gate.len());
        let forward = Forward {
            gate: gate.view(),
            up: up.view(),
            y: y.view_mut(),
            activation,
            elements,
        };
        device.glu_forward(forward.checked().unwrap()).unwrap();
        let backward = Backward {
            gate: gate.view_mut(),
            up: up.view_mut(),
            dy: dy.view_mut(),
            activation,
            elements,
        };
        device.glu_backward(backward.checked().unwrap()).unwrap();
        [y, gate, up, dy].map(|tensor| tensor.to_f32_vec().unwrap())
    }
}

/// `inexact` is the factor by which exponential and error function may be less exact than on the
/// CPU.
fn compare_with_the_oracle<D: Glu>(device: &D, dtype: DType, inexact: f64) {
    for (activation, length) in ACTIVATIONS.iter().flat_map(|&a| LENGTHS.map(|l| (a, l))) {
        let case = Case::of(dtype, length, activation);
        let [y, dgate, dup, again] = case.run(device);
        assert_eq!(y, again, "the backward pass computes the same y");
        for i in 0..length {
            let [x, up, dy] = [case.gate[i], case.up[i], case.dy[i]].map(f64::from);
            let (value, slope) = exact(activation, x);
            let error = inexact * value_error(activation, x, value);
            // One more rounding for each product; results may be subnormal.
            let check = |name: &str, got: f32, exact: f64, tolerance: f64| {
                let tolerance = tolerance
                    + EPSILON * exact.abs()
                    + f64::from(f32::MIN_POSITIVE) * EPSILON
                    + rounding(dtype, exact);
                assert!(
                    (f64::from(got) - exact).abs() <= tolerance,
                    "{activation:?} {name}({x:e}): {got:e} {exact:e} ± {tolerance:e}"
                );
            };
            check("y", y[i], value * up, error * up.abs());
            check("dup", dup[i], value * dy, error * dy.abs());
            // The slope is a sum of terms of at most 1 and |value| · slope of the exponent ≤ 1 + |x|.
            let size = inexact * 4.0 * EPSILON * (1.0 + x.abs().min(20.0));
            check("dgate", dgate[i], slope * dy * up, size * (dy * up).abs());
        }
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    for dtype in [DType::F32, DType::BF16] {
        compare_with_the_oracle(&Cpu::new(2).unwrap(), dtype, 1.0);
    }
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    for dtype in [DType::F32, DType::BF16] {
        compare_with_the_oracle(cuda(), dtype, 2.0);
    }
}

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda().forcing(IndexWidth::Wide);
    for (activation, length) in ACTIVATIONS
        .iter()
        .flat_map(|&a| [33, 65_557].map(|l| (a, l)))
    {
        let case = Case::of(DType::BF16, length, activation);
        assert!(case.run(cuda()) == case.run(&wide));
    }
}

#[test]
fn bits_depend_neither_on_threads_nor_on_the_place() {
    for activation in ACTIVATIONS {
        let case = Case::new(100_003, activation);
        let expected = case.run(&Cpu::new(1).unwrap());
        for threads in [2, 3] {
            assert_eq!(case.run(&Cpu::new(threads).unwrap()), expected);
        }
        for start in [1, 3, 16_383, 99_990] {
            let part = Case {
                dtype: case.dtype,
                gate: case.gate[start..].to_vec(),
                up: case.up[start..].to_vec(),
                dy: case.dy[start..].to_vec(),
                activation,
            };
            for (part, whole) in part.run(&Cpu::new(1).unwrap()).iter().zip(&expected) {
                assert_eq!(part, &whole[start..]);
            }
        }
    }
}

#[test]
fn nan_stays_in_its_element_and_infinity_is_a_limit() {
    check_nan(&Cpu::new(1).unwrap());
    check_nan(cuda());
}

fn check_nan<D: Glu>(device: &D) {
    for activation in ACTIVATIONS {
        let mut case = Case::new(40, activation);
        (case.gate[7], case.up[20], case.dy[39]) = (f32::NAN, f32::NAN, f32::NAN);
        case.gate[3] = f32::INFINITY;
        (case.up[3], case.dy[3]) = (1.0, 1.0);
        let [y, dgate, dup, _] = case.run(device);
        let nan = |values: &[f32]| -> Vec<usize> {
            (0..40).filter(|&i| i != 3 && values[i].is_nan()).collect()
        };
        assert_eq!(nan(&y), [7, 20]);
        assert_eq!(nan(&dgate), [7, 20, 39]);
        assert_eq!(nan(&dup), [7, 39]);
        assert_eq!((y[3], dup[3]), (f32::INFINITY, f32::INFINITY));
    }
}

#[test]
fn elements_beyond_the_last_are_left_alone() {
    check_the_end(&Cpu::new(1).unwrap());
    check_the_end(cuda());
}

fn check_the_end<D: Glu>(device: &D) {
    let tensor = |values: &[f32]| Tensor::from_slice(device, &[values.len()], values).unwrap();
    let (mut gate, mut up, mut dy) = (
        tensor(&[1.0, 5.0]),
        tensor(&[2.0, 5.0]),
        tensor(&[3.0, 5.0]),
    );
    let args = Backward {
        gate: gate.view_mut(),
        up: up.view_mut(),
        dy: dy.view_mut(),
        activation: Activation::Silu,
        elements: 1,
    };
    device.glu_backward(args.checked().unwrap()).unwrap();
    for tensor in [gate, up, dy] {
        assert_eq!(tensor.to_vec::<f32>().unwrap()[1], 5.0);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    for wrong in ["gate", "up", "y", "dy"] {
        for broken in [zeros(DType::F32, 4), zeros(DType::U32, 5)] {
            let dtype = broken.dtype();
            let make = |name| match name == wrong {
                true => zeros(dtype, broken.len()),
                false => zeros(DType::F32, 5),
            };
            let (mut gate, mut up, mut y, mut dy) =
                (make("gate"), make("up"), make("y"), make("dy"));
            let (activation, elements) = (Activation::Silu, 5);
            let forward = Forward {
                gate: gate.view(),
                up: up.view(),
                y: y.view_mut(),
                activation,
                elements,
            }
            .check();
            let backward = Backward {
                gate: gate.view_mut(),
                up: up.view_mut(),
                dy: dy.view_mut(),
                activation,
                elements,
            }
            .check();
            assert_eq!(forward.is_err(), wrong != "dy");
            assert_eq!(backward.is_err(), wrong != "y");
            for error in [forward, backward].into_iter().filter_map(Result::err) {
                assert!(error.to_string().contains(wrong), "{wrong}: {error}");
            }
        }
    }
}
