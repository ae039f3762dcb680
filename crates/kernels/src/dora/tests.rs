//! Weight-decomposed adapters against an f64 oracle, whose own gradients are compared with finite
//! differences.

use super::*;
use crate::{
    linear::{LoraBackwardWeights, Shape},
    product::{Dropout, Elements, Mask, matmul::Gate},
};
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{
    Random, assert_close, cuda, cuda_with_small_limits, oracle::linear::product, rounded, tensor,
    widen,
};

const SHAPES: [(usize, usize, usize, usize); 8] = [
    // tokens, inputs, outputs, rank
    (0, 3, 4, 2),
    (1, 1, 1, 1),
    (5, 7, 9, 3),
    (6, 16, 16, 8),
    (13, 64, 33, 16),
    (65, 257, 47, 9),
    (300, 40, 35, 3),
    (70, 136, 128, 17),
];
const SCALE: f32 = 0.75;
const FACTOR: f32 = 0.5;
const SALT: u64 = 91;

struct Case {
    dtype: DType,
    shape: Shape,
    rank: usize,
    probability: f32,
    accumulate: bool,
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    magnitude: Vec<f32>,
    keys: Vec<u32>,
}

/// `norm`, `y`, `dx`, `da`, `db`, `dmagnitude`, `dbias`.
type Results = [Vec<f32>; 7];
const NAMES: [&str; 7] = ["norm", "y", "dx", "da", "db", "dmagnitude", "dbias"];

impl Case {
    fn new(
        dtype: DType,
        (tokens, inputs, outputs, rank): (usize, usize, usize, usize),
        probability: f32,
    ) -> Self {
        let mut random = Random::new((tokens * 31 + inputs) as u64);
        let mut numbers = |len, deviation| random.normal(len, deviation);
        Self {
            dtype,
            shape: Shape {
                tokens,
                inputs,
                outputs,
            },
            rank,
            probability,
            accumulate: tokens % 2 == 1,
            x: rounded(&numbers(tokens * inputs, 1.0), dtype),
            dy: rounded(&numbers(tokens * outputs, 1.0), dtype),
            weight: numbers(outputs * inputs, 1.0),
            bias: numbers(outputs, 1.0),
            a: numbers(rank * inputs, 0.3),
            b: numbers(outputs * rank, 0.3),
            magnitude: numbers(outputs, 1.0)
                .iter()
                .map(|m| m.abs() + 0.5)
                .collect(),
            keys: (0..tokens as u32).flat_map(|t| [t / 10, t % 10]).collect(),
        }
    }

    fn run<D: crate::Kernels>(&self, device: &D) -> Results {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let rank = self.rank;
        let f32s = |shape: &[usize], values: &[f32]| tensor(device, DType::F32, shape, values);
        let acts = |shape: &[usize], values: &[f32]| tensor(device, self.dtype, shape, values);
        let filled = |dtype, shape: &[usize], value: f32| {
            tensor(device, dtype, shape, &vec![value; shape.iter().product()])
        };
        let (x, dy) = (
            acts(&[tokens, inputs], &self.x),
            acts(&[tokens, outputs], &self.dy),
        );
        let weight = f32s(&[outputs, inputs], &self.weight);
        let weight = Elements::Float(weight.view());
        let (bias, magnitude) = (
            f32s(&[outputs], &self.bias),
            f32s(&[outputs], &self.magnitude),
        );
        let (a, b) = (
            f32s(&[rank, inputs], &self.a),
            f32s(&[outputs, rank], &self.b),
        );
        let keys = Tensor::from_slice(device, &[tokens, 2], &self.keys).unwrap();
        let squares: Vec<f32> = (0..outputs)
            .map(|j| {
                let row = &self.weight[j * inputs..(j + 1) * inputs];
                row.iter()
                    .map(|&w| f64::from(w) * f64::from(w))
                    .sum::<f64>() as f32
            })
            .collect();
        let squares = f32s(&[outputs], &squares);
        let mut norm = filled(DType::F32, &[outputs], f32::NAN);
        let mut gain = filled(DType::F32, &[outputs], f32::NAN);
        let norms = Norms {
            weight,
            squares: squares.view(),
            a: a.view(),
            b: b.view(),
            scale: SCALE,
            magnitude: magnitude.view(),
            norm: norm.view_mut(),
            gain: gain.view_mut(),
            inputs,
            outputs,
        };
        norms.run(device).unwrap();
        let dropout = (self.probability > 0.0).then_some(Dropout {
            probability: self.probability,
            salt: SALT,
            keys: keys.view(),
        });
        let adapter = Adapter {
            a: a.view(),
            b: b.view(),
            scale: SCALE * FACTOR,
            dropout,
            gain: gain.view(),
        };
        let before = if self.accumulate { 0.5 } else { f32::NAN };
        let mut xa = filled(DType::F32, &[tokens, rank], f32::NAN);
        let mut dyb = filled(DType::F32, &[tokens, rank], f32::NAN);
        let mut z = filled(self.dtype, &[tokens, outputs], f32::NAN);
        let mut dz = filled(self.dtype, &[tokens, outputs], f32::NAN);
        let mut y = filled(self.dtype, &[tokens, outputs], f32::NAN);
        let mut dx = filled(self.dtype, &[tokens, inputs], before);
        let mut dmagnitude = filled(DType::F32, &[outputs], 0.25);
        let mut dbias = filled(DType::F32, &[outputs], 0.25);
        let mut da = filled(DType::F32, &[rank, inputs], 0.25);
        let mut db = filled(DType::F32, &[outputs, rank], 0.25);
        let forward = Forward {
            x: x.view(),
            weight,
            factor: FACTOR,
            bias: Some(bias.view()),
            adapter,
            xa: xa.view_mut(),
            z: z.view_mut(),
            y: y.view_mut(),
            shape: self.shape,
        };
        forward.run(device).unwrap();
        let backward = BackwardInput {
            dy: dy.view(),
            weight,
            factor: FACTOR,
            adapter,
            norm: norm.view(),
            z: z.view(),
            dz: dz.view_mut(),
            dyb: dyb.view_mut(),
            dmagnitude: dmagnitude.view_mut(),
            dx: Some(dx.view_mut()),
            accumulate: self.accumulate,
            shape: self.shape,
        };
        backward.run(device).unwrap();
        let backward = BackwardWeights {
            x: x.view(),
            dy: dy.view(),
            dz: dz.view(),
            dbias: Some(dbias.view_mut()),
            lora: LoraBackwardWeights {
                scale: SCALE * FACTOR,
                dropout,
                xa: xa.view(),
                dyb: dyb.view(),
                da: da.view_mut(),
                db: db.view_mut(),
            },
            shape: self.shape,
        };
        backward.run(device).unwrap();
        [norm, y, dx, da, db, dmagnitude, dbias].map(|t| t.to_f32_vec().unwrap())
    }

    fn mask(&self) -> Vec<f64> {
        let Shape { tokens, inputs, .. } = self.shape;
        let cpu = Cpu::new(1).unwrap();
        let keys = Tensor::from_slice(&cpu, &[tokens, 2], &self.keys).unwrap();
        let dropout = Dropout {
            probability: self.probability,
            salt: SALT,
            keys: keys.view(),
        };
        let mut factors = vec![1f32; tokens * inputs];
        if let Some(mask) = Mask::new(&Some(dropout), tokens).unwrap() {
            for (t, row) in factors.chunks_exact_mut(inputs.max(1)).enumerate() {
                mask.apply(t, 0..inputs, row);
            }
        }
        widen(&factors)
    }

    fn oracle(&self) -> Oracle {
        Oracle {
            sizes: (
                self.shape.tokens,
                self.shape.inputs,
                self.shape.outputs,
                self.rank,
            ),
            x: widen(&self.x),
            weight: widen(&self.weight),
            bias: widen(&self.bias),
            a: widen(&self.a),
            b: widen(&self.b),
            magnitude: widen(&self.magnitude),
            mask: self.mask(),
            norm: None,
        }
    }

    fn expected(&self) -> [Vec<f64>; 7] {
        let oracle = self.oracle();
        let before = if self.accumulate { 0.5 } else { 0.0 };
        let [dx, da, db, dm, dbias] = oracle.gradients(&widen(&self.dy));
        let plus = |values: Vec<f64>, start: f64| values.iter().map(|v| v + start).collect();
        [
            oracle.norms(),
            oracle.forward(),
            plus(dx, before),
            plus(da, 0.25),
            plus(db, 0.25),
            plus(dm, 0.25),
            plus(dbias, 0.25),
        ]
    }
}

/// PEFT's formulas in f64.
#[derive(Clone)]
struct Oracle {
    /// tokens, inputs, outputs, rank.
    sizes: (usize, usize, usize, usize),
    x: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    a: Vec<f64>,
    b: Vec<f64>,
    magnitude: Vec<f64>,
    mask: Vec<f64>,
    /// The norms, if they are held fixed.
    norm: Option<Vec<f64>>,
}

impl Oracle {
    /// `W + s·B·A`.
    fn moved(&self) -> Vec<f64> {
        let (_, inputs, outputs, rank) = self.sizes;
        let (a, b) = (|p, i| self.a[p * inputs + i], |j, p| self.b[j * rank + p]);
        let change = product((outputs, rank, inputs), b, a);
        let pairs = self.weight.iter().zip(change);
        pairs.map(|(w, c)| w + f64::from(SCALE) * c).collect()
    }

    fn norms(&self) -> Vec<f64> {
        if let Some(norm) = &self.norm {
            return norm.clone();
        }
        let rows = self.moved();
        let (_, inputs, ..) = self.sizes;
        rows.chunks(inputs)
            .map(|row| row.iter().map(|w| w * w).sum::<f64>().sqrt())
            .collect()
    }

    /// `[tokens, n]` times the transpose of `[outputs, inputs]`.
    fn through(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let (tokens, inputs, outputs, _) = self.sizes;
        product(
            (tokens, inputs, outputs),
            |t, i| x[t * inputs + i],
            |i, j| weight[j * inputs + i],
        )
    }

    fn dropped(&self) -> Vec<f64> {
        self.x.iter().zip(&self.mask).map(|(x, m)| x * m).collect()
    }

    /// `x·Wᵀ + bias + (m/n − 1) · xd·Wᵀ + m/n · s · xd·Aᵀ·Bᵀ`, times the factor but for the bias.
    fn forward(&self) -> Vec<f64> {
        let (.., outputs, _) = self.sizes;
        let (norm, dropped) = (self.norms(), self.dropped());
        let whole = self.through(&self.x, &self.weight);
        let frozen = self.through(&dropped, &self.weight);
        let moved = self.through(&dropped, &self.moved());
        let at = |k: usize| {
            let j = k % outputs;
            let gain = self.magnitude[j] / norm[j];
            f64::from(FACTOR) * (whole[k] - frozen[k] + gain * moved[k]) + self.bias[j]
        };
        (0..whole.len()).map(at).collect()
    }

    /// `dx`, `da`, `db`, `dmagnitude`, `dbias`.
    fn gradients(&self, dy: &[f64]) -> [Vec<f64>; 5] {
        let (tokens, inputs, outputs, rank) = self.sizes;
        let (norm, dropped, moved) = (self.norms(), self.dropped(), self.moved());
        let factor = f64::from(FACTOR);
        let gain = |j: usize| factor * self.magnitude[j] / norm[j];
        let back = |gain: &dyn Fn(usize) -> f64, weight: &[f64]| {
            product(
                (tokens, outputs, inputs),
                |t, j| gain(j) * dy[t * outputs + j],
                |j, i| weight[j * inputs + i],
            )
        };
        let one = |_: usize| factor;
        let (plain, scaled) = (back(&one, &self.weight), back(&gain, &moved));
        let dx = (0..tokens * inputs)
            .map(|k| plain[k] + self.mask[k] * (scaled[k] - plain[k]))
            .collect();
        // The gradient of B·A, of which those of the factors are products.
        let dchange = product(
            (outputs, tokens, inputs),
            |j, t| gain(j) * f64::from(SCALE) * dy[t * outputs + j],
            |t, i| dropped[t * inputs + i],
        );
        let da = product(
            (rank, outputs, inputs),
            |p, j| self.b[j * rank + p],
            |j, i| dchange[j * inputs + i],
        );
        let db = product(
            (outputs, inputs, rank),
            |j, i| dchange[j * inputs + i],
            |i, p| self.a[p * inputs + i],
        );
        let z = self.through(&dropped, &moved);
        let over = |f: &dyn Fn(usize) -> f64| {
            let sum = |j| (0..tokens).map(|t| f(t * outputs + j)).sum();
            (0..outputs).map(sum).collect::<Vec<f64>>()
        };
        let dm = over(&|k| factor * dy[k] * z[k] / norm[k % outputs]);
        [dx, da, db, dm, over(&|k| dy[k])]
    }
}

fn compare(case: &Case, got: &Results, tolerance: f64) {
    for ((name, got), expected) in NAMES.iter().zip(got).zip(&case.expected()) {
        let squares: f64 = expected.iter().map(|e| e * e).sum();
        let rms = (squares / expected.len().max(1) as f64).sqrt();
        assert_close(name, got, expected, tolerance * rms.max(1.0), tolerance);
    }
}

fn cases(dtype: DType) -> impl Iterator<Item = Case> {
    let shapes = SHAPES.into_iter();
    shapes.flat_map(move |shape| [0.0, 0.3].map(|p| Case::new(dtype, shape, p)))
}

#[test]
fn the_oracle_has_the_slopes_of_its_forward_pass() {
    for probability in [0.0, 0.4] {
        let case = Case::new(DType::F32, (5, 7, 4, 2), probability);
        let dy = widen(&case.dy);
        let mut oracle = case.oracle();
        // PEFT takes the norms for constants.
        oracle.norm = Some(oracle.norms());
        let loss = |oracle: &Oracle| -> f64 {
            oracle.forward().iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let fields: [fn(&mut Oracle) -> &mut Vec<f64>; 5] = [
            |o| &mut o.x,
            |o| &mut o.a,
            |o| &mut o.b,
            |o| &mut o.magnitude,
            |o| &mut o.bias,
        ];
        for (field, gradient) in fields.into_iter().zip(oracle.gradients(&dy)) {
            for (index, slope) in gradient.into_iter().enumerate() {
                let at = |step: f64| {
                    let mut moved = oracle.clone();
                    field(&mut moved)[index] += step;
                    loss(&moved)
                };
                let difference = (at(1e-4) - at(-1e-4)) / 2e-4;
                let close = (difference - slope).abs() <= 1e-6 * slope.abs().max(1.0);
                assert!(close, "{difference} is not {slope}");
            }
        }
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    for case in cases(DType::F32) {
        compare(&case, &case.run(&Cpu::new(2).unwrap()), 1e-5);
    }
    // Rows of bf16 are rounded several times on the way.
    for case in cases(DType::BF16) {
        compare(&case, &case.run(&Cpu::new(2).unwrap()), 4e-2);
    }
}

#[test]
fn cuda_is_the_oracle() {
    for case in cases(DType::F32) {
        compare(&case, &case.run(cuda()), 1e-5);
    }
    // Rows of bf16 are rounded several times on the way.
    for case in cases(DType::BF16) {
        compare(&case, &case.run(cuda()), 4e-2);
    }
}

#[test]
fn bits_depend_neither_on_threads_nor_on_wide_offsets() {
    let wide = cuda_with_small_limits().forcing(IndexWidth::Wide);
    for case in cases(DType::F32) {
        let one = case.run(&Cpu::new(1).unwrap());
        assert_eq!(one, case.run(&Cpu::new(3).unwrap()), "{:?}", case.shape);
        let narrow = case.run(cuda_with_small_limits());
        assert_eq!(narrow, case.run(&wide), "{:?}", case.shape);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(&cpu, DType::F32, shape).unwrap();
    let (z, gain, mut y) = (zeros(&[3, 4]), zeros(&[5]), zeros(&[3, 4]));
    let scale = ScaleColumns {
        z: z.view(),
        gain: Some(gain.view()),
        alpha: 1.0,
        start: Start::Zero,
        y: y.view_mut(),
        rows: 3,
        columns: 4,
    };
    let error = scale.checked().unwrap_err().to_string();
    assert!(error.contains("gain"), "{error}");
    let mut sums = zeros(&[3]);
    let gain = zeros(&[4]);
    let backward = ScaleColumnsBackward {
        dy: z.view(),
        z: z.view(),
        gain: gain.view(),
        norm: gain.view(),
        dz: y.view_mut(),
        dmagnitude: sums.view_mut(),
        rows: 3,
        columns: 4,
    };
    let error = backward.checked().unwrap_err().to_string();
    assert!(error.contains("dmagnitude"), "{error}");
    let (mut norm, mut out) = (zeros(&[4]), zeros(&[4]));
    let norms = RowNorms {
        squares: gain.view(),
        b: z.view(),
        u: z.view(),
        c: z.view(),
        magnitude: gain.view(),
        scale: 1.0,
        norm: norm.view_mut(),
        gain: out.view_mut(),
        outputs: 4,
        rank: 3,
    };
    let error = norms.checked().unwrap_err().to_string();
    assert!(error.contains("`b`"), "{error}");
}
