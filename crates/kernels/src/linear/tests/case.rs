//! A layer: its inputs, its outputs, and the results of the oracle.

use super::super::*;
use super::{SALT, SCALE, cpu, nf4::Stored};
use crate::product::Mask;
use tightrope_device::Tensor;
use tightrope_testkit::{Random, oracle::linear as oracle, rounded, rounding, tensor, unit, widen};

/// All inputs of a layer.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) shape: Shape,
    pub(super) rank: usize,
    pub(super) probability: f32,
    /// Types of the activations and of the stored weight.
    pub(super) types: (DType, DType),
    pub(super) accumulate: bool,
    pub(super) factor: f32,
    pub(super) x: Vec<f32>,
    pub(super) dy: Vec<f32>,
    pub(super) weight: Vec<f32>,
    /// The weight in NF4, if it is stored so; `weight` is then its decoded form.
    pub(super) nf4: Option<Stored>,
    pub(super) bias: Vec<f32>,
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
    pub(super) keys: Vec<u32>,
}

/// `y`, `dx`, `dweight`, `dbias`, `da`, `db`; the sums start from `x`-independent fillings.
#[derive(Debug, PartialEq)]
pub(super) struct Results(pub(super) [Vec<f32>; 6]);

pub(super) const NAMES: [&str; 6] = ["y", "dx", "dweight", "dbias", "da", "db"];

impl Case {
    pub(super) fn new(shape: (usize, usize, usize, usize), probability: f32) -> Self {
        Self::of((DType::F32, DType::F32), shape, probability)
    }

    pub(super) fn of(
        types: (DType, DType),
        (tokens, inputs, outputs, rank): (usize, usize, usize, usize),
        probability: f32,
    ) -> Self {
        let mut random = Random::new((tokens * 31 + inputs) as u64);
        // Not so small that f16 would have fewer digits.
        let mut numbers = |len| -> Vec<f32> {
            let away = |v: f32| v.signum() * v.abs().max(1.0 / 64.0);
            random.normal(len, 1.0).into_iter().map(away).collect()
        };
        Self {
            shape: Shape {
                tokens,
                inputs,
                outputs,
            },
            rank,
            probability,
            types,
            accumulate: false,
            factor: if tokens % 2 == 0 { 1.0 } else { 0.75 },
            x: rounded(&numbers(tokens * inputs), types.0),
            dy: rounded(&numbers(tokens * outputs), types.0),
            weight: rounded(&numbers(outputs * inputs), types.1),
            nf4: None,
            bias: numbers(outputs),
            a: numbers(rank * inputs),
            b: numbers(outputs * rank),
            keys: (0..tokens as u32).flat_map(|t| [t / 10, t % 10]).collect(),
        }
    }

    pub(super) fn run<D: Linear>(&self, device: &D) -> Results {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let rank = self.rank;
        let activations =
            |shape: &[usize], values: &[f32]| tensor(device, self.types.0, shape, values);
        let f32s = |shape: &[usize], values: &[f32]| tensor(device, DType::F32, shape, values);
        let float = tensor(device, self.types.1, &[outputs, inputs], &self.weight);
        let nf4 = self.nf4.as_ref().map(|stored| stored.on(device));
        let weight = match &nf4 {
            Some(nf4) => Elements::Nf4(nf4.weight()),
            None => Elements::Float(float.view()),
        };
        let x = activations(&[tokens, inputs], &self.x);
        let dy = activations(&[tokens, outputs], &self.dy);
        let bias = f32s(&[outputs], &self.bias);
        let a = f32s(&[rank, inputs], &self.a);
        let b = f32s(&[outputs, rank], &self.b);
        let keys = Tensor::from_slice(device, &[tokens, 2], &self.keys).unwrap();
        let dropout = Some(Dropout {
            probability: self.probability,
            salt: SALT,
            keys: keys.view(),
        });
        // Overwritten outputs start as NaN, so that reading them is noticed.
        let filled = |dtype, shape: &[usize], value: f32| {
            tensor(device, dtype, shape, &vec![value; shape.iter().product()])
        };
        let before = if self.accumulate { 0.5 } else { f32::NAN };
        let mut y = filled(self.types.0, &[tokens, outputs], f32::NAN);
        let mut xa = filled(DType::F32, &[tokens, rank], f32::NAN);
        let mut dyb = filled(DType::F32, &[tokens, rank], f32::NAN);
        let mut dx = filled(self.types.0, &[tokens, inputs], before);
        let mut dweight = filled(DType::F32, &[outputs, inputs], 0.25);
        let mut dbias = filled(DType::F32, &[outputs], 0.25);
        let mut da = filled(DType::F32, &[rank, inputs], 0.25);
        let mut db = filled(DType::F32, &[outputs, rank], 0.25);
        let forward = Forward {
            x: x.view(),
            weight,
            factor: self.factor,
            bias: Some(bias.view()),
            lora: Some(LoraForward {
                a: a.view(),
                b: b.view(),
                scale: SCALE,
                dropout,
                xa: xa.view_mut(),
            }),
            y: y.view_mut(),
            shape: self.shape,
        };
        device.linear_forward(forward.checked().unwrap()).unwrap();
        let backward = BackwardInput {
            dy: dy.view(),
            weight,
            factor: self.factor,
            lora: Some(LoraBackwardInput {
                a: a.view(),
                b: b.view(),
                scale: SCALE,
                dropout,
                dyb: dyb.view_mut(),
            }),
            dx: Some(dx.view_mut()),
            accumulate: self.accumulate,
            shape: self.shape,
        };
        device
            .linear_backward_input(backward.checked().unwrap())
            .unwrap();
        let backward = BackwardWeights {
            x: x.view(),
            dy: dy.view(),
            dweight: Some(dweight.view_mut()),
            factor: self.factor,
            dbias: Some(dbias.view_mut()),
            lora: Some(LoraBackwardWeights {
                scale: SCALE,
                dropout,
                xa: xa.view(),
                dyb: dyb.view(),
                da: da.view_mut(),
                db: db.view_mut(),
            }),
            shape: self.shape,
        };
        device
            .linear_backward_weights(backward.checked().unwrap())
            .unwrap();
        Results([y, dx, dweight, dbias, da, db].map(|t| t.to_f32_vec().unwrap()))
    }

    /// The factors of dropout, found by sending ones through the mask itself.
    pub(super) fn mask(&self) -> Vec<f64> {
        let Shape { tokens, inputs, .. } = self.shape;
        let keys = Tensor::from_slice(&cpu(1), &[tokens, 2], &self.keys).unwrap();
        let dropout = Dropout {
            probability: self.probability,
            salt: SALT,
            keys: keys.view(),
        };
        let mut factors = vec![1f32; tokens * inputs];
        if let Some(mask) = Mask::new(&Some(dropout), tokens).unwrap() {
            for (t, row) in factors.chunks_exact_mut(inputs.max(1)).enumerate() {
                crate::product::matmul::Gate::apply(&mask, t, 0..inputs, row);
            }
        }
        widen(&factors)
    }

    /// The oracle with `value` applied to every input: the identity, or the magnitude, which gives
    /// the sums of the magnitudes of all terms.
    pub(super) fn oracle(&self, value: impl Fn(f64) -> f64) -> [Vec<f64>; 6] {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let rank = self.rank;
        let read = |values: &[f32]| -> Vec<f64> { widen(values).into_iter().map(&value).collect() };
        let [x, dy, a, b] = [&self.x, &self.dy, &self.a, &self.b].map(|v| read(v));
        let factor = f64::from(self.factor);
        let weight: Vec<f64> = read(&self.weight).iter().map(|w| factor * w).collect();
        let bias = read(&self.bias);
        let mask = self.mask();
        let scale = f64::from(SCALE);
        let lora = oracle::Lora {
            a: &a,
            b: &b,
            scale,
            mask: &mask,
        };
        let sizes = (tokens, inputs, outputs);
        let y = oracle::forward(&x, &weight, Some(&bias), Some(lora), sizes);
        let dropped: Vec<f64> = x.iter().zip(&mask).map(|(x, m)| x * m).collect();
        let (dy_at, x_at) = (
            |t: usize, o: usize| dy[t * outputs + o],
            |t: usize, i: usize| x[t * inputs + i],
        );
        let xa = oracle::product(
            (tokens, inputs, rank),
            |t, i| dropped[t * inputs + i],
            |i, r| a[r * inputs + i],
        );
        let dyb = oracle::product((tokens, outputs, rank), dy_at, |o, r| b[o * rank + r]);
        let through = oracle::product(
            (tokens, rank, inputs),
            |t, r| dyb[t * rank + r],
            |r, i| a[r * inputs + i],
        );
        let mut dx = oracle::product((tokens, outputs, inputs), dy_at, |o, i| {
            weight[o * inputs + i]
        });
        for (index, dx) in dx.iter_mut().enumerate() {
            *dx += scale * mask[index] * through[index] + if self.accumulate { 0.5 } else { 0.0 };
        }
        let add = |values: Vec<f64>, scale: f64| values.iter().map(|v| 0.25 + scale * v).collect();
        let dweight = add(
            oracle::product((outputs, tokens, inputs), |o, t| dy_at(t, o), x_at),
            factor,
        );
        let dbias = add(
            oracle::product((1, tokens, outputs), |_, _| 1.0, dy_at),
            1.0,
        );
        let da = add(
            oracle::product(
                (rank, tokens, inputs),
                |r, t| dyb[t * rank + r],
                |t, i| dropped[t * inputs + i],
            ),
            scale,
        );
        let db = add(
            oracle::product(
                (outputs, tokens, rank),
                |o, t| dy_at(t, o),
                |t, r| xa[t * rank + r],
            ),
            scale,
        );
        [y, dx, dweight, dbias, da, db]
    }

    pub(super) fn expected(&self) -> [Vec<f64>; 6] {
        self.oracle(|v| v)
    }

    /// Compares with the oracle within the bounds of rounding, for any order of the sums.
    ///
    /// Relative to the sum of the magnitudes of its terms, a sum of `n` products is off by at most
    /// `n + 8` f32 roundings (products, additions, and the few factors). Where the activations are
    /// narrower, so is what goes into a product: in `y` a share of the adapter is made of four
    /// rounded numbers (`dropout(x)`, `A`, `xa`, `B`) and is itself rounded, in `dx` of three and
    /// rounded, in `da` and `db` of three; one more covers their products. At last the result is
    /// rounded to its type.
    #[track_caller]
    pub(super) fn compare(&self, got: &Results) {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let narrow = |roundings: f64| match self.types.0 {
            DType::F32 => 0.0,
            dtype => roundings * unit(dtype),
        };
        let terms = |n: usize| (n + 8) as f64 * unit(DType::F32);
        let relative = [
            terms(inputs + self.rank) + narrow(6.0),
            terms(outputs + self.rank) + narrow(6.0),
            terms(tokens),
            terms(tokens),
            terms(outputs + tokens) + narrow(4.0),
            terms(inputs + tokens) + narrow(4.0),
        ];
        let (expected, sizes) = (self.expected(), self.oracle(f64::abs));
        for i in 0..6 {
            let dtype = if i < 2 { self.types.0 } else { DType::F32 };
            assert_eq!(got.0[i].len(), expected[i].len(), "{}", NAMES[i]);
            for (j, got) in got.0[i].iter().enumerate() {
                let expected = expected[i][j];
                let error = relative[i] * sizes[i][j];
                let error = error + 2.0 * rounding(dtype, expected.abs() + error);
                let close = (f64::from(*got) - expected).abs() <= error;
                assert!(
                    close,
                    "{:?} {:?}: {}[{j}] = {got}, {expected} ± {error}",
                    self.shape, self.types, NAMES[i]
                );
            }
        }
    }
}
