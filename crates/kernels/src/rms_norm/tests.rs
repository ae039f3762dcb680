//! RMSNorm against the f64 oracle: every option, awkward shapes, threads, places, checks.

use super::*;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{
    Random, cuda, cuda_with_small_limits, oracle::rms_norm as oracle, rounded, rounding, tensor,
    unit, widen,
};

const EPS: f32 = 1e-5;
/// Rows and features. On the CPU blocks have 16,384 elements, and up to four of them stay on one
/// thread; on CUDA rows are shared by some lanes, some warps or more than a block holds at once.
const SHAPES: [(usize, usize); 13] = [
    (0, 8),
    (1, 1),
    (3, 16),
    (5, 31),
    (2, 33),
    (7, 64),
    (3, 576),
    (21, 1000),
    (1, 4097),
    (7, 4104),
    (6, 8200),
    (321, 256),
    (4100, 17),
];

/// Roundings on the way to a row's statistics: additions of a lane (of 32, or with up to 16 elements)
/// and of the tree, then a few.
fn roundings(dim: usize) -> f64 {
    (dim as f64 / 32.0).max(16.0) + 12.0
}

#[derive(Clone, Debug)]
struct Case {
    /// Type of the activations.
    dtype: DType,
    rows: usize,
    dim: usize,
    plus_one: bool,
    x: Vec<f32>,
    add: Option<Vec<f32>>,
    weight: Vec<f32>,
    dy: Vec<f32>,
    /// Initial values of `dx` and `dweight`.
    before: Vec<f32>,
    accumulate: bool,
}

/// `y`, `rstd`, the sum with the residual, `dx` and `dweight`.
#[derive(Debug, PartialEq)]
struct Results {
    y: Vec<f32>,
    rstd: Vec<f32>,
    sum: Vec<f32>,
    dx: Vec<f32>,
    dweight: Vec<f32>,
}

impl Case {
    fn new(shape: (usize, usize), option: usize) -> Self {
        Self::of(DType::F32, shape, option)
    }

    fn of(dtype: DType, (rows, dim): (usize, usize), option: usize) -> Self {
        let mut random = Random::new((rows * 10_007 + dim * 8 + option) as u64);
        let mut numbers = |len| rounded(&random.normal(len, 1.0), dtype);
        Self {
            dtype,
            rows,
            dim,
            plus_one: option & 1 != 0,
            x: numbers(rows * dim),
            add: (option & 2 != 0).then(|| numbers(rows * dim)),
            weight: numbers(dim),
            dy: numbers(rows * dim),
            before: numbers((rows * dim).max(dim)),
            accumulate: option & 4 != 0,
        }
    }

    fn run<D: RmsNorm>(&self, device: &D, frozen: bool) -> Results {
        let Self { rows, dim, .. } = *self;
        let all = |values: &[f32]| tensor(device, self.dtype, &[rows * dim], values);
        let f32s = |values: &[f32]| tensor(device, DType::F32, &[values.len()], values);
        let (x, weight) = (all(&self.x), f32s(&self.weight));
        let mut y = all(&vec![7.0; rows * dim]);
        let mut rstd = f32s(&vec![7.0; rows]);
        let add = self.add.as_ref().map(|add| all(add));
        let mut sum = all(&self.x);
        let args = Forward {
            x: x.view(),
            residual: add.as_ref().map(|add| Residual {
                add: add.view(),
                sum: sum.view_mut(),
            }),
            weight: weight.view(),
            plus_one: self.plus_one,
            eps: EPS,
            y: y.view_mut(),
            rstd: rstd.view_mut(),
            rows,
            dim,
        };
        device.rms_norm_forward(args.checked().unwrap()).unwrap();
        let mut dx = all(&self.before[..rows * dim]);
        let mut dweight = f32s(&self.before[..dim]);
        let dy = all(&self.dy);
        let args = Backward {
            dy: dy.view(),
            x: sum.view(),
            rstd: rstd.view(),
            weight: weight.view(),
            plus_one: self.plus_one,
            dx: dx.view_mut(),
            accumulate: self.accumulate,
            dweight: (!frozen).then_some(dweight.view_mut()),
            rows,
            dim,
        };
        device.rms_norm_backward(args.checked().unwrap()).unwrap();
        let values = |tensor: Tensor<D>| tensor.to_f32_vec().unwrap();
        Results {
            y: values(y),
            rstd: values(rstd),
            sum: values(sum),
            dx: values(dx),
            dweight: values(dweight),
        }
    }
}

/// Elementwise; a NaN fails.
fn assert_within(name: &str, got: &[f32], expected: &[f64], tolerance: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let close = (f64::from(got) - expected).abs() <= tolerance(i);
        assert!(close, "{name}[{i}]: {got} {expected} ± {}", tolerance(i));
    }
}

/// Every option at every shape.
fn compare_with_the_oracle<D: RmsNorm>(device: &D, dtype: DType) {
    let u = unit(DType::F32);
    for (shape, option) in SHAPES.iter().flat_map(|&s| (0..8).map(move |o| (s, o))) {
        let case = Case::of(dtype, shape, option);
        let (rows, dim) = shape;
        let got = case.run(device, false);
        // The sum is one rounding; everything else is compared on the basis of this sum.
        let sum: Vec<f32> = match &case.add {
            None => case.x.clone(),
            Some(add) => case.x.iter().zip(add).map(|(x, add)| x + add).collect(),
        };
        let sum = rounded(&sum, dtype);
        assert_eq!(got.sum, sum);
        let offset = f64::from(u8::from(case.plus_one));
        let w: Vec<f64> = case.weight.iter().map(|&w| f64::from(w) + offset).collect();
        let (x, dy) = (widen(&sum), widen(&case.dy));
        let (y, rstd) = oracle::forward(&x, &w, f64::from(EPS));
        let error = roundings(dim) * u;
        assert_within("rstd", &got.rstd, &rstd, |row| error * rstd[row]);
        // `w + 1` may cancel: its rounding is relative to the result, so no more than another unit.
        assert_within("y", &got.y, &y, |i| {
            error * y[i].abs() + rounding(dtype, y[i])
        });

        let (mut dx, mut dw) = oracle::backward(&dy, &x, &w, f64::from(EPS));
        // Both terms of dx may cancel: relative to what they would be if all had one sign.
        let row_size = |row: usize| {
            let range = row * dim..(row + 1) * dim;
            let g: Vec<f64> = dy[range.clone()]
                .iter()
                .zip(&w)
                .map(|(dy, w)| (dy * w).abs())
                .collect();
            let n: Vec<f64> = x[range].iter().map(|x| (x * rstd[row]).abs()).collect();
            let mean: f64 = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / dim as f64;
            let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
            rstd[row] * (largest(&g) + largest(&n) * mean)
        };
        let sizes: Vec<f64> = (0..rows).map(row_size).collect();
        if case.accumulate {
            for (dx, &before) in dx.iter_mut().zip(&case.before) {
                *dx += f64::from(before);
            }
        }
        assert_within("dx", &got.dx, &dx, |i| {
            2.0 * error * (sizes[i / dim] + dx[i].abs()) + 2.0 * rounding(dtype, dx[i])
        });
        // A sum over rows, each addition rounded once: relative to the sum of the magnitudes.
        let mut size = vec![0.0; dim];
        for (i, (dy, x)) in dy.iter().zip(&x).enumerate() {
            size[i % dim] += (dy * x * rstd[i / dim]).abs();
        }
        for (dw, &before) in dw.iter_mut().zip(&case.before) {
            *dw += f64::from(before);
        }
        let additions = (rows as f64 + 2.0) * u + error;
        assert_within("dweight", &got.dweight, &dw, |h| {
            additions * (size[h] + f64::from(case.before[h]).abs())
        });
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    for dtype in [DType::F32, DType::BF16] {
        compare_with_the_oracle(&Cpu::new(2).unwrap(), dtype);
    }
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    for dtype in [DType::F32, DType::BF16] {
        compare_with_the_oracle(cuda(), dtype);
        compare_with_the_oracle(cuda_with_small_limits(), dtype);
    }
}

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda_with_small_limits().forcing(IndexWidth::Wide);
    for (shape, option) in SHAPES.iter().flat_map(|&s| [(s, 2), (s, 5)]) {
        let case = Case::of(DType::BF16, shape, option);
        assert_eq!(
            case.run(cuda_with_small_limits(), false),
            case.run(&wide, false)
        );
    }
}

#[test]
fn a_frozen_weight_changes_no_bit_of_dx() {
    fn compare<D: RmsNorm>(device: &D) {
        for (shape, option) in SHAPES.iter().flat_map(|&s| [(s, 0), (s, 7)]) {
            let case = Case::new(shape, option);
            let (trained, frozen) = (case.run(device, false), case.run(device, true));
            assert_eq!(trained.dx, frozen.dx);
            assert_eq!(frozen.dweight, &case.before[..case.dim]);
        }
    }
    compare(&Cpu::new(2).unwrap());
    compare(cuda_with_small_limits());
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for (shape, option) in SHAPES.iter().flat_map(|&s| [(s, 1), (s, 6)]) {
        let case = Case::new(shape, option);
        let run = |threads| case.run(&Cpu::new(threads).unwrap(), false);
        let expected = run(1);
        assert_eq!(run(2), expected);
        assert_eq!(run(3), expected);
    }
}

#[test]
fn a_row_has_the_same_bits_wherever_it_stands_and_nan_stays_in_its_row() {
    compare_rows(&Cpu::new(2).unwrap());
    compare_rows(cuda_with_small_limits());
}

fn compare_rows<D: RmsNorm>(device: &D) {
    let mut case = Case::new((321, 257), 2);
    let clean = case.run(device, false);
    let at = |row: usize| row * 257..(row + 1) * 257;
    for row in [0, 1, 63, 64, 200, 320] {
        let mut alone = case.clone();
        alone.rows = 1;
        alone.x = case.x[at(row)].to_vec();
        alone.dy = case.dy[at(row)].to_vec();
        alone.add = case.add.as_ref().map(|add| add[at(row)].to_vec());
        let alone = alone.run(device, false);
        assert_eq!(alone.y, &clean.y[at(row)]);
        assert_eq!(alone.dx, &clean.dx[at(row)]);
        assert_eq!(alone.rstd[0], clean.rstd[row]);
    }
    case.x[at(200).start + 256] = f32::NAN;
    let broken = case.run(device, false);
    for row in 0..321 {
        if row == 200 {
            assert!(
                broken.y[at(row)]
                    .iter()
                    .chain(&broken.dx[at(row)])
                    .all(|y| y.is_nan())
            );
        } else {
            assert_eq!(broken.y[at(row)], clean.y[at(row)]);
            assert_eq!(broken.dx[at(row)], clean.dx[at(row)]);
        }
    }
    assert!(broken.dweight.iter().all(|dw| dw.is_nan()));
}

#[test]
fn buffers_may_be_longer_than_the_rows() {
    let cpu = Cpu::new(1).unwrap();
    let tensor = |values: &[f32]| Tensor::from_slice(&cpu, &[values.len()], values).unwrap();
    let (x, weight) = (tensor(&[3.0, 4.0, 9.0]), tensor(&[1.0, 2.0]));
    let (mut y, mut rstd) = (tensor(&[7.0; 4]), tensor(&[7.0; 2]));
    let args = Forward {
        x: x.view(),
        residual: None,
        weight: weight.view(),
        plus_one: false,
        eps: 0.0,
        y: y.view_mut(),
        rstd: rstd.view_mut(),
        rows: 1,
        dim: 2,
    };
    cpu.rms_norm_forward(args.checked().unwrap()).unwrap();
    // rstd = (25/2)^-½.
    let y = y.to_vec::<f32>().unwrap();
    assert!((y[0] - 0.848_528).abs() < 1e-6 && (y[1] - 2.262_742).abs() < 1e-6);
    assert_eq!(&y[2..], [7.0, 7.0]);
    assert_eq!(rstd.to_vec::<f32>().unwrap()[1], 7.0);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let names = [
        "x", "add", "sum", "weight", "y", "rstd", "dy", "dx", "dweight",
    ];
    for wrong in names {
        for dtype in [DType::F32, DType::U32] {
            // One element too few, or the right number of another type.
            let make = |name: &str, len: usize| match (name == wrong, dtype) {
                (true, DType::F32) => zeros(DType::F32, len - 1),
                (true, dtype) => zeros(dtype, len),
                (false, _) => zeros(DType::F32, len),
            };
            let (x, add, weight, dy) = (
                make("x", 6),
                make("add", 6),
                make("weight", 3),
                make("dy", 6),
            );
            let (mut sum, mut y, mut rstd) = (make("sum", 6), make("y", 6), make("rstd", 2));
            let (mut dx, mut dweight) = (make("dx", 6), make("dweight", 3));
            let forward = Forward {
                x: x.view(),
                residual: Some(Residual {
                    add: add.view(),
                    sum: sum.view_mut(),
                }),
                weight: weight.view(),
                plus_one: false,
                eps: EPS,
                y: y.view_mut(),
                rstd: rstd.view_mut(),
                rows: 2,
                dim: 3,
            }
            .check();
            let backward = Backward {
                dy: dy.view(),
                x: x.view(),
                rstd: rstd.view(),
                weight: weight.view(),
                plus_one: false,
                dx: dx.view_mut(),
                accumulate: false,
                dweight: Some(dweight.view_mut()),
                rows: 2,
                dim: 3,
            }
            .check();
            let reads = |names: &[&str]| names.contains(&wrong);
            assert_eq!(
                forward.is_err(),
                reads(&["x", "add", "sum", "weight", "y", "rstd"]),
                "{wrong}"
            );
            assert_eq!(
                backward.is_err(),
                reads(&["x", "dy", "rstd", "weight", "dx", "dweight"]),
                "{wrong}"
            );
            for error in [forward, backward].into_iter().filter_map(Result::err) {
                assert!(error.to_string().contains(wrong), "{wrong}: {error}");
            }
        }
    }
}
