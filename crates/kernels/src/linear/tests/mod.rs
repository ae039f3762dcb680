//! Linear layers against the f64 oracle, over awkward shapes, types, devices and thread counts.

mod case;
mod mask;
mod nf4;

use super::*;
use case::{Case, NAMES, Results};
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{
    assert_close, cpus, cuda, cuda_with_small_limits, oracle::linear as oracle, tensor, unit, widen,
};

const SHAPES: [(usize, usize, usize, usize); 10] = [
    // tokens, inputs, outputs, rank
    (0, 3, 4, 2),
    (1, 1, 1, 1),
    (5, 7, 9, 3),
    (6, 16, 16, 8),
    (7, 17, 31, 5),
    (13, 64, 33, 16),
    (65, 257, 47, 9),
    (97, 129, 145, 17),
    (300, 40, 35, 3),
    (150, 600, 130, 16),
];
const ACTIVATIONS: [DType; 2] = [DType::F32, DType::BF16];
/// Types of weights.
const STORED: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
const SCALE: f32 = 0.75;
const SALT: u64 = 77;

fn cpu(threads: usize) -> Cpu {
    Cpu::new(threads).unwrap()
}

/// Bounds for sums of at most ~600 products of standard normals (~10⁵ in the adapter's two-step
/// sums); see `docs/numerics.md`. They are closer than the worst case.
#[track_caller]
fn compare_closely(got: &Results, expected: &[Vec<f64>; 6]) {
    for ((name, got), expected) in NAMES.iter().zip(&got.0).zip(expected) {
        let rms =
            (expected.iter().map(|e| e * e).sum::<f64>() / expected.len().max(1) as f64).sqrt();
        assert_close(name, got, expected, 4e-6 * rms.max(1.0), 4e-6);
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    let cpu = cpu(2);
    for shape in SHAPES {
        for option in 0..4 {
            let mut case = Case::new(shape, if option & 1 == 0 { 0.0 } else { 0.3 });
            case.accumulate = option & 2 != 0;
            let got = case.run(&cpu);
            case.compare(&got);
            compare_closely(&got, &case.expected());
        }
    }
}

#[test]
fn the_cpu_reads_stored_weights_exactly() {
    for stored in STORED {
        let case = Case::of((DType::F32, stored), (13, 65, 33, 4), 0.0);
        compare_closely(&case.run(&cpu(2)), &case.expected());
    }
}

/// Every option at every shape, with each pair of types in some of them.
fn in_every_type(check: impl Fn(&Case)) {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for (j, dtype) in ACTIVATIONS.into_iter().enumerate() {
            for option in 0..4 {
                let types = (dtype, STORED[(i + j) % 3]);
                let mut case = Case::of(types, shape, if option & 1 == 0 { 0.0 } else { 0.3 });
                case.accumulate = option & 2 != 0;
                check(&case);
            }
        }
    }
}

#[test]
fn every_way_of_the_cpu_is_the_oracle_in_every_type() {
    let cpus = cpus(2);
    in_every_type(|case| cpus.iter().for_each(|cpu| case.compare(&case.run(cpu))));
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    in_every_type(|case| {
        case.compare(&case.run(cuda()));
        case.compare(&case.run(cuda_with_small_limits()));
    });
}

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda_with_small_limits().forcing(IndexWidth::Wide);
    for (shape, dtype) in SHAPES.iter().flat_map(|&s| ACTIVATIONS.map(|t| (s, t))) {
        let case = Case::of((dtype, dtype), shape, 0.3);
        assert_eq!(
            case.run(cuda_with_small_limits()),
            case.run(&wide),
            "{shape:?}"
        );
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for shape in SHAPES {
        let mut case = Case::new(shape, 0.3);
        case.accumulate = true;
        let one = case.run(&cpu(1));
        for threads in [2, 3] {
            assert_eq!(one, case.run(&cpu(threads)), "{shape:?}");
        }
    }
}

#[test]
fn a_token_has_the_same_bits_wherever_it_stands() {
    for dtype in ACTIVATIONS {
        for cpu in cpus(2) {
            compare_places(&cpu, dtype);
        }
    }
    for dtype in ACTIVATIONS {
        compare_places(cuda_with_small_limits(), dtype);
    }
}

fn compare_places<D: Linear>(device: &D, dtype: DType) {
    let (inputs, outputs) = (300, 70);
    let full = Case::of((dtype, dtype), (61, inputs, outputs, 6), 0.3);
    let whole = full.run(device);
    for (start, len) in [(0, 1), (60, 1), (7, 3), (20, 41)] {
        let mut part = full.clone();
        part.shape.tokens = len;
        part.x = full.x[start * inputs..][..len * inputs].to_vec();
        part.dy = full.dy[start * outputs..][..len * outputs].to_vec();
        part.keys = full.keys[start * 2..][..len * 2].to_vec();
        let alone = part.run(device);
        let of_whole = |i: usize, width: usize| &whole.0[i][start * width..][..len * width];
        assert_eq!(alone.0[0], of_whole(0, outputs), "y at {start}");
        assert_eq!(alone.0[1], of_whole(1, inputs), "dx at {start}");
    }
}

#[test]
fn a_nan_reaches_everything_that_depends_on_it() {
    fn compare<D: Linear>(device: &D) {
        for probability in [0.0, 0.9] {
            let mut case = Case::new((13, 20, 30, 4), probability);
            case.x[5 * 20 + 3] = f32::NAN;
            let Results([y, ..]) = case.run(device);
            for (index, y) in y.iter().enumerate() {
                assert_eq!(y.is_nan(), index / 30 == 5, "y[{index}] = {y}");
            }
        }
    }
    compare(&cpu(2));
    compare(cuda_with_small_limits());
}

#[test]
fn only_the_bottleneck_is_computed_without_dx() {
    fn compare<D: Linear>(device: &D) {
        let case = Case::new((3, 4, 5, 2), 0.0);
        let f32s = |shape: &[usize], values: &[f32]| tensor(device, DType::F32, shape, values);
        let [dy, weight, a, b] = [
            f32s(&[3, 5], &case.dy),
            f32s(&[5, 4], &case.weight),
            f32s(&[2, 4], &case.a),
            f32s(&[5, 2], &case.b),
        ];
        let mut dyb = f32s(&[3, 2], &[f32::NAN; 6]);
        let args = BackwardInput {
            factor: 1.0,
            dy: dy.view(),
            weight: Elements::Float(weight.view()),
            lora: Some(LoraBackwardInput {
                a: a.view(),
                b: b.view(),
                scale: SCALE,
                dropout: None,
                dyb: dyb.view_mut(),
            }),
            dx: None,
            accumulate: false,
            shape: case.shape,
        };
        device
            .linear_backward_input(args.checked().unwrap())
            .unwrap();
        let expected = oracle::product(
            (3, 5, 2),
            |t, o| case.dy[t * 5 + o].into(),
            |o, r| case.b[o * 2 + r].into(),
        );
        assert_close("dyb", &dyb.to_f32_vec().unwrap(), &expected, 1e-5, 1e-5);
    }
    compare(&cpu(1));
    compare(cuda_with_small_limits());
}

#[test]
fn neither_bias_nor_adapter_is_needed() {
    fn compare<D: Linear>(device: &D, dtype: DType) {
        let Case {
            shape,
            x,
            dy,
            weight,
            ..
        } = Case::of((dtype, dtype), (5, 24, 7, 1), 0.0);
        let (x, dy) = (
            tensor(device, dtype, &[5, 24], &x),
            tensor(device, dtype, &[5, 7], &dy),
        );
        let weight = tensor(device, dtype, &[7, 24], &weight);
        let mut y = tensor(device, dtype, &[5, 7], &[f32::NAN; 35]);
        let mut dx = tensor(device, dtype, &[5, 24], &[f32::NAN; 120]);
        let args = Forward {
            factor: 1.0,
            x: x.view(),
            weight: Elements::Float(weight.view()),
            bias: None,
            lora: None,
            y: y.view_mut(),
            shape,
        };
        device.linear_forward(args.checked().unwrap()).unwrap();
        let args = BackwardInput {
            factor: 1.0,
            dy: dy.view(),
            weight: Elements::Float(weight.view()),
            lora: None,
            dx: Some(dx.view_mut()),
            accumulate: false,
            shape,
        };
        device
            .linear_backward_input(args.checked().unwrap())
            .unwrap();
        let args = BackwardWeights {
            factor: 1.0,
            x: x.view(),
            dy: dy.view(),
            dweight: None,
            dbias: None,
            lora: None,
            shape,
        };
        device
            .linear_backward_weights(args.checked().unwrap())
            .unwrap();
        let [x, dy, weight] = [&x, &dy, &weight].map(|t| widen(&t.to_f32_vec().unwrap()));
        let expected = oracle::forward(&x, &weight, None, None, (5, 24, 7));
        let error = 32.0 * unit(DType::F32) * 24.0 * 9.0;
        let close = |name, got: &Tensor<D>, expected: &[f64]| {
            let got = got.to_f32_vec().unwrap();
            assert_close(name, &got, expected, error, 1.01 * unit(dtype));
        };
        close("y", &y, &expected);
        let expected = oracle::product((5, 7, 24), |t, o| dy[t * 7 + o], |o, i| weight[o * 24 + i]);
        close("dx", &dx, &expected);
    }
    for dtype in ACTIVATIONS {
        compare(&cpu(1), dtype);
    }
    for dtype in ACTIVATIONS {
        compare(cuda_with_small_limits(), dtype);
    }
}

#[test]
fn activations_share_a_type_which_is_f32_on_the_cpu() {
    let cpu = cpu(1);
    let zeros = |dtype, shape: &[usize]| Tensor::zeros(&cpu, dtype, shape).unwrap();
    let weight = zeros(DType::F32, &[4, 3]);
    let forward = |of_x, of_y| {
        let (x, mut y) = (zeros(of_x, &[2, 3]), zeros(of_y, &[2, 4]));
        let args = Forward {
            factor: 1.0,
            x: x.view(),
            weight: Elements::Float(weight.view()),
            bias: None,
            lora: None,
            y: y.view_mut(),
            shape: Shape {
                tokens: 2,
                inputs: 3,
                outputs: 4,
            },
        };
        cpu.linear_forward(args.checked()?)
    };
    let error = forward(DType::F32, DType::BF16).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "y", .. }));
    forward(DType::BF16, DType::BF16).unwrap();
    let error = forward(DType::F16, DType::F16).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "x", .. }));
    assert!(error.to_string().contains("f32, bf16 on cpu"), "{error}");
}
