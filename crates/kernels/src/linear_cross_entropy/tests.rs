//! The fused loss against the f64 oracle that holds everything in memory.

use super::*;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{
    Random, assert_close, cpus, cuda, cuda_with_small_limits,
    oracle::linear_cross_entropy as oracle, rounded, rounding, tensor, unit, widen,
};

#[derive(Clone)]
pub(super) struct Case {
    /// Types of the activations and of the stored weight.
    pub(super) types: (DType, DType),
    pub(super) hidden: usize,
    pub(super) vocabulary: usize,
    pub(super) x: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) targets: Vec<i32>,
    pub(super) weights: Vec<f32>,
    pub(super) logit_scale: f32,
    pub(super) softcap: Option<f32>,
}

const SHAPES: [(usize, usize, usize); 7] = [
    // tokens, hidden, vocabulary
    (0, 4, 5),
    (1, 1, 1),
    (3, 5, 2),
    (20, 16, 17),
    (33, 40, 301),
    (140, 24, 515),
    (3, 8, 4100),
];
pub(super) const ACTIVATIONS: [DType; 2] = [DType::F32, DType::BF16];
/// Types of weights.
const STORED: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
/// The largest weight of a token.
const LARGEST: f32 = 0.125;
/// Initial value of `dweight`.
pub(super) const BEFORE: f32 = 0.5;

/// `losses`, `dx`, `dweight`.
type Results = [Vec<f32>; 3];
const NAMES: [&str; 3] = ["losses", "dx", "dweight"];

impl Case {
    fn new(shape: (usize, usize, usize), every: usize) -> Self {
        Self::of((DType::F32, DType::F32), shape, every)
    }

    pub(super) fn of(
        types: (DType, DType),
        (tokens, hidden, vocabulary): (usize, usize, usize),
        every: usize,
    ) -> Self {
        let mut random = Random::new((tokens * 7 + vocabulary) as u64);
        // Not so small that f16 would have fewer digits.
        let away = |v: f32| v.signum() * v.abs().max(1.0 / 64.0);
        let mut numbers = |len, dtype| -> Vec<f32> {
            let values: Vec<f32> = random.normal(len, 1.0).into_iter().map(away).collect();
            rounded(&values, dtype)
        };
        Self {
            types,
            hidden,
            vocabulary,
            x: numbers(tokens * hidden, types.0),
            weight: numbers(vocabulary * hidden, types.1),
            targets: (0..tokens)
                .map(|t| {
                    if t % every == 0 {
                        random.below(vocabulary) as i32
                    } else {
                        -100
                    }
                })
                .collect(),
            // Weights of both signs, and zero.
            weights: (0..tokens)
                .map(|t| LARGEST * ((t % 5) as f32 / 2.0 - 1.0))
                .collect(),
            logit_scale: 0.5,
            softcap: None,
        }
    }

    fn run<D: LinearCrossEntropy>(&self, device: &D) -> Result<Results, KernelError> {
        let (tokens, hidden, vocabulary) = (self.targets.len(), self.hidden, self.vocabulary);
        let x = tensor(device, self.types.0, &[tokens, hidden], &self.x);
        let weight = tensor(device, self.types.1, &[vocabulary, hidden], &self.weight);
        let targets = Tensor::from_slice(device, &[tokens], &self.targets)?;
        let weights = Tensor::from_slice(device, &[tokens], &self.weights)?;
        let filled = |dtype, shape: &[usize], value: f32| {
            tensor(device, dtype, shape, &vec![value; shape.iter().product()])
        };
        let mut losses = filled(DType::F32, &[tokens], f32::NAN);
        let mut only = filled(DType::F32, &[tokens], f32::NAN);
        let mut frozen = filled(DType::F32, &[tokens], f32::NAN);
        let mut dx = filled(self.types.0, &[tokens, hidden], f32::NAN);
        let mut frozen_dx = filled(self.types.0, &[tokens, hidden], f32::NAN);
        let mut dweight = filled(DType::F32, &[vocabulary, hidden], BEFORE);
        let forward = |losses| Forward {
            x: x.view(),
            weight: weight.view(),
            lora: None,
            targets: targets.view(),
            logit_scale: self.logit_scale,
            softcap: self.softcap,
            losses,
            tokens,
            hidden,
            vocabulary,
        };
        let bits = |tensor: &Tensor<D>| -> Result<Vec<u32>, KernelError> {
            Ok(tensor.to_f32_vec()?.iter().map(|v| v.to_bits()).collect())
        };
        device.linear_cross_entropy_forward(forward(only.view_mut()).checked()?)?;
        let args = ForwardBackward {
            forward: forward(frozen.view_mut()),
            weights: weights.view(),
            dx: frozen_dx.view_mut(),
            dweight: None,
            rows: None,
            dlora: None,
        };
        device.linear_cross_entropy_forward_backward(args.checked()?)?;
        let args = ForwardBackward {
            forward: forward(losses.view_mut()),
            weights: weights.view(),
            dx: dx.view_mut(),
            dweight: Some(dweight.view_mut()),
            rows: None,
            dlora: None,
        };
        device.linear_cross_entropy_forward_backward(args.checked()?)?;
        assert_eq!(
            bits(&only)?,
            bits(&losses)?,
            "the loss depends on whether gradients are wanted"
        );
        assert_eq!(
            bits(&frozen_dx)?,
            bits(&dx)?,
            "dx depends on whether dweight is wanted"
        );
        Ok([
            losses.to_f32_vec()?,
            dx.to_f32_vec()?,
            dweight.to_f32_vec()?,
        ])
    }

    pub(super) fn expected(&self) -> [Vec<f64>; 3] {
        let options = oracle::Options {
            logit_scale: self.logit_scale.into(),
            softcap: self.softcap.map(f64::from),
        };
        let output = oracle::forward_backward(
            &widen(&self.x),
            &widen(&self.weight),
            &self.targets,
            &widen(&self.weights),
            self.hidden,
            options,
        );
        let before = f64::from(BEFORE);
        [
            output.losses,
            output.dx,
            output.dweight.iter().map(|d| before + d).collect(),
        ]
    }

    /// Bounds of rounding for each result, for any order of the sums.
    pub(super) fn errors(&self, expected: &[Vec<f64>; 3]) -> [Vec<f64>; 3] {
        let Self {
            hidden,
            vocabulary,
            types: (dtype, stored),
            ..
        } = *self;
        let u = unit(DType::F32);
        // Gradients of the logits are rounded to a narrower type, and a weight of another type is.
        let narrow = if dtype == DType::F32 {
            0.0
        } else {
            unit(dtype)
        };
        let converted = if dtype == stored { 0.0 } else { narrow };
        let (x, weight) = (widen(&self.x), widen(&self.weight));
        let factor = f64::from(LARGEST) * f64::from(self.logit_scale);
        // Threads add up their share of the exponentials one by one, and those are a few units off.
        let sum = (vocabulary as f64 / 256.0 + 60.0) * u;
        let [mut losses, mut dx, mut dweight] =
            expected.each_ref().map(|values| vec![0.0; values.len()]);
        for (t, &target) in self.targets.iter().enumerate() {
            let Ok(target) = usize::try_from(target) else {
                continue;
            };
            let row = &x[t * hidden..][..hidden];
            let products = |v: usize| {
                let scale = f64::from(self.logit_scale);
                row.iter()
                    .zip(&weight[v * hidden..])
                    .map(move |(x, w)| scale * x * w)
            };
            let size = |v| products(v).map(f64::abs).sum::<f64>();
            let largest = (0..vocabulary).map(size).fold(0.0, f64::max);
            let cap = self.softcap.map(f64::from);
            // Error of a logit, and of the difference of two.
            let off = largest * ((hidden + 8) as f64 * u + 1.1 * converted)
                + cap.map_or(0.0, |cap| 8.0 * u * cap);
            let relative = (2.0 * off).exp_m1() + sum;
            losses[t] = 2.0 * off + sum + 4.0 * u * expected[0][t].abs();
            // 1 − tanh² cancels: relative to 1.
            let slope = cap.map_or(0.0, |cap| 2.0 * off / cap + 8.0 * u);
            let logit = |v| {
                let z: f64 = products(v).sum();
                cap.map_or(z, |cap| cap * (z / cap).tanh())
            };
            let logits: Vec<f64> = (0..vocabulary).map(logit).collect();
            let top = logits.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = logits.iter().map(|l| (l - top).exp()).sum();
            for (v, l) in logits.iter().enumerate() {
                let p = (l - top).exp() / total;
                let q = if v == target { 1.0 - p } else { p };
                let d = q * (relative + slope + 1.1 * narrow) + rounding(dtype, 0.0);
                for (h, x) in row.iter().enumerate() {
                    let w = weight[v * hidden + h].abs();
                    let terms = (vocabulary + 8) as f64 * u + 1.1 * converted;
                    dx[t * hidden + h] += factor * w * (d + q * terms);
                    let terms = (self.targets.len() + 16) as f64 * u;
                    dweight[v * hidden + h] += factor * x.abs() * (d + q * terms);
                }
            }
        }
        for (error, expected) in dx.iter_mut().zip(&expected[1]) {
            *error += rounding(dtype, expected.abs() + *error);
        }
        for (error, expected) in dweight.iter_mut().zip(&expected[2]) {
            *error += (self.targets.len() + 16) as f64 * u * (f64::from(BEFORE) + expected.abs());
        }
        [losses, dx, dweight]
    }

    #[track_caller]
    fn compare<D: LinearCrossEntropy>(&self, device: &D) {
        let got = self.run(device).unwrap();
        let expected = self.expected();
        let errors = self.errors(&expected);
        for (i, got) in got.iter().enumerate() {
            for (j, got) in got.iter().enumerate() {
                let close = (f64::from(*got) - expected[i][j]).abs() <= errors[i][j];
                assert!(
                    close,
                    "{:?} {} classes: {}[{j}] = {got}, {} ± {}",
                    self.types, self.vocabulary, NAMES[i], expected[i][j], errors[i][j]
                );
            }
        }
        if self.types.0 == DType::F32 {
            // Closer than the worst case.
            for i in 0..3 {
                assert_close(NAMES[i], &got[i], &expected[i], 4e-6, 4e-6);
            }
        }
    }
}

fn compare_with_the_oracle<D: LinearCrossEntropy>(device: &D, dtype: DType) {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for (j, every) in [1, 3, 1000].into_iter().enumerate() {
            for softcap in [None, Some(3.0)] {
                let mut case = Case::of((dtype, STORED[(i + j) % 3]), shape, every);
                case.softcap = softcap;
                case.compare(device);
            }
        }
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    for cpu in cpus(2) {
        for dtype in ACTIVATIONS {
            compare_with_the_oracle(&cpu, dtype);
        }
    }
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    for dtype in ACTIVATIONS {
        compare_with_the_oracle(cuda(), dtype);
        compare_with_the_oracle(cuda_with_small_limits(), dtype);
    }
}

#[test]
fn several_chunks_add_up() {
    // At this vocabulary the rows of a chunk are capped at 1,024 on the CPU, at 256 on GPUs in tests.
    let cpu = Cpu::new(2).unwrap();
    for every in [1, 2] {
        Case::new((2100, 3, 7), every).compare(&cpu);
        Case::new((600, 3, 7), every).compare(cuda_with_small_limits());
    }
    Case::of((DType::BF16, DType::F16), (600, 3, 7), 1).compare(cuda_with_small_limits());
}

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda_with_small_limits().forcing(IndexWidth::Wide);
    for (shape, dtype) in SHAPES.iter().flat_map(|&s| ACTIVATIONS.map(|t| (s, t))) {
        let case = Case::of((dtype, dtype), shape, 2);
        assert_eq!(
            case.run(cuda_with_small_limits()).unwrap(),
            case.run(&wide).unwrap()
        );
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let case = Case::new((140, 24, 515), 2);
    let one = case.run(&Cpu::new(1).unwrap()).unwrap();
    for threads in [2, 3] {
        assert_eq!(one, case.run(&Cpu::new(threads).unwrap()).unwrap());
    }
}

#[test]
fn a_row_has_the_same_bits_wherever_it_stands() {
    fn compare<D: LinearCrossEntropy>(device: &D, dtype: DType) {
        let full = Case::of((dtype, dtype), (90, 24, 301), 1);
        let whole = full.run(device).unwrap();
        for (start, len) in [(0, 1), (89, 1), (13, 9)] {
            let mut part = full.clone();
            part.x = full.x[start * 24..][..len * 24].to_vec();
            part.targets = full.targets[start..][..len].to_vec();
            part.weights = full.weights[start..][..len].to_vec();
            let alone = part.run(device).unwrap();
            assert_eq!(alone[0], whole[0][start..][..len]);
            assert_eq!(alone[1], whole[1][start * 24..][..len * 24]);
        }
        // It does not matter either which other rows have a target.
        let mut few = full.clone();
        for (t, target) in few.targets.iter_mut().enumerate() {
            if t % 7 != 3 {
                *target = -1;
            }
        }
        let few = few.run(device).unwrap();
        for t in 0..90 {
            let dx = &few[1][t * 24..][..24];
            if t % 7 == 3 {
                assert_eq!(few[0][t], whole[0][t]);
                assert_eq!(dx, &whole[1][t * 24..][..24]);
            } else {
                assert_eq!(few[0][t], 0.0);
                assert_eq!(dx, [0.0; 24]);
            }
        }
    }
    for dtype in ACTIVATIONS {
        compare(&Cpu::new(2).unwrap(), dtype);
    }
    for dtype in ACTIVATIONS {
        compare(cuda_with_small_limits(), dtype);
    }
}

#[test]
fn a_confident_prediction_keeps_its_digits() {
    // Logits 0 and 20: the loss is 2·10⁻⁹ and so is `p − 1`, which subtraction would make 0.
    fn compare<D: LinearCrossEntropy>(device: &D) {
        let case = Case {
            types: (DType::F32, DType::F32),
            hidden: 1,
            vocabulary: 2,
            x: vec![1.0],
            weight: vec![0.0, 20.0],
            targets: vec![1],
            weights: vec![LARGEST],
            logit_scale: 1.0,
            softcap: None,
        };
        let [losses, dx, _] = case.run(device).unwrap();
        let expected = case.expected();
        let loss = (-20f64).exp().ln_1p();
        assert_close("losses", &losses, &[loss], 0.0, 1e-6);
        assert_close("dx", &dx, &expected[1], 0.0, 1e-6);
    }
    compare(&Cpu::new(1).unwrap());
    compare(cuda_with_small_limits());
}

#[test]
fn large_logits_do_not_overflow() {
    fn compare<D: LinearCrossEntropy>(device: &D) {
        let mut case = Case::new((20, 16, 50), 1);
        case.x.iter_mut().for_each(|x| *x *= 1000.0);
        let [losses, dx, _] = case.run(device).unwrap();
        let expected = case.expected();
        // Logits near 10⁴ are themselves rounded to about 10⁻³.
        assert_close("losses", &losses, &expected[0], 4e-3, 4e-6);
        assert!(dx.iter().all(|d| d.is_finite()));
    }
    compare(&Cpu::new(1).unwrap());
    compare(cuda_with_small_limits());
}

#[test]
fn a_nan_stays_in_its_row_and_is_not_hidden() {
    fn compare<D: LinearCrossEntropy>(device: &D) {
        for softcap in [None, Some(2.0)] {
            let mut case = Case::new((12, 8, 40), 1);
            case.softcap = softcap;
            case.x[5 * 8] = f32::NAN;
            let [losses, dx, dweight] = case.run(device).unwrap();
            for (t, loss) in losses.iter().enumerate() {
                assert_eq!(loss.is_nan(), t == 5);
            }
            for (index, d) in dx.iter().enumerate() {
                assert_eq!(d.is_nan(), index / 8 == 5);
            }
            assert!(dweight.iter().all(|d| d.is_nan()));
        }
    }
    compare(&Cpu::new(2).unwrap());
    compare(cuda_with_small_limits());
}

#[test]
fn a_target_outside_the_vocabulary_is_named() {
    fn compare<D: LinearCrossEntropy>(device: &D) {
        let mut case = Case::new((3, 4, 5), 1);
        case.targets[2] = 5;
        let error = case.run(device).unwrap_err();
        assert_eq!(error.to_string(), "`targets[2]` is 5, outside 0..5");
    }
    compare(&Cpu::new(1).unwrap());
    compare(cuda_with_small_limits());
}

#[test]
fn activations_of_f16_are_refused() {
    let case = Case::of((DType::F16, DType::F32), (3, 4, 5), 1);
    let error = case.run(&Cpu::new(1).unwrap()).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "x", .. }));
}
