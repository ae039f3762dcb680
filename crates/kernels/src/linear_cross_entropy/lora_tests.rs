//! The adapter of the output projection against the f64 oracle, with and without dropout.

use super::{
    tests::{ACTIVATIONS, BEFORE, Case},
    *,
};
use crate::product::{Mask, matmul::Gate};
use tightrope_device::{Cpu, Tensor};
use tightrope_testkit::{
    Random, cpus, cuda, cuda_with_small_limits, oracle::linear_cross_entropy as oracle,
    relative_distance, tensor, widen,
};

const SCALE: f32 = 1.5;
const NAMES: [&str; 4] = ["losses", "dx", "da", "db"];

struct Adapted {
    case: Case,
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    keys: Vec<u32>,
    probability: f32,
}

impl Adapted {
    fn new(dtype: DType, shape: (usize, usize, usize), rank: usize, probability: f32) -> Self {
        let (tokens, hidden, vocabulary) = shape;
        let mut random = Random::new(rank as u64 + tokens as u64);
        let keys = (0..2 * tokens as u32).map(|key| key.wrapping_mul(2_654_435_761));
        Self {
            case: Case::of((dtype, dtype), shape, 2),
            rank,
            a: random.normal(rank * hidden, 0.3),
            b: random.normal(vocabulary * rank, 0.3),
            keys: keys.collect(),
            probability,
        }
    }

    fn dropout<'a, D: Device>(&self, keys: View<'a, D>) -> Option<Dropout<'a, D>> {
        (self.probability > 0.0).then_some(Dropout {
            probability: self.probability,
            salt: 7,
            keys,
        })
    }

    fn run<D: LinearCrossEntropy>(&self, device: &D) -> Result<[Vec<f32>; 4], KernelError> {
        let Case {
            types: (dtype, stored),
            hidden,
            vocabulary,
            ..
        } = self.case;
        let (tokens, rank) = (self.case.targets.len(), self.rank);
        let x = tensor(device, dtype, &[tokens, hidden], &self.case.x);
        let weight = tensor(device, stored, &[vocabulary, hidden], &self.case.weight);
        let targets = Tensor::from_slice(device, &[tokens], &self.case.targets)?;
        let weights = Tensor::from_slice(device, &[tokens], &self.case.weights)?;
        let keys = Tensor::from_slice(device, &[tokens, 2], &self.keys)?;
        let a = tensor(device, DType::F32, &[rank, hidden], &self.a);
        let b = tensor(device, DType::F32, &[vocabulary, rank], &self.b);
        let filled = |dtype, shape: [usize; 2]| {
            tensor(device, dtype, &shape, &vec![BEFORE; shape[0] * shape[1]])
        };
        let mut losses = Tensor::zeros(device, DType::F32, &[tokens])?;
        let mut only = Tensor::zeros(device, DType::F32, &[tokens])?;
        let mut dx = filled(dtype, [tokens, hidden]);
        let mut da = filled(DType::F32, [rank, hidden]);
        let mut db = filled(DType::F32, [vocabulary, rank]);
        let forward = |losses| Forward {
            x: x.view(),
            weight: weight.view(),
            lora: Some(Lora {
                a: a.view(),
                b: b.view(),
                scale: SCALE,
                dropout: self.dropout(keys.view()),
            }),
            targets: targets.view(),
            logit_scale: self.case.logit_scale,
            softcap: self.case.softcap,
            losses,
            tokens,
            hidden,
            vocabulary,
        };
        device.linear_cross_entropy_forward(forward(only.view_mut()).checked()?)?;
        let args = ForwardBackward {
            forward: forward(losses.view_mut()),
            weights: weights.view(),
            dx: dx.view_mut(),
            dweight: None,
            rows: None,
            dlora: Some(LoraGradient {
                da: da.view_mut(),
                db: db.view_mut(),
            }),
        };
        device.linear_cross_entropy_forward_backward(args.checked()?)?;
        assert_eq!(only.to_f32_vec()?, losses.to_f32_vec()?);
        Ok([
            losses.to_f32_vec()?,
            dx.to_f32_vec()?,
            da.to_f32_vec()?,
            db.to_f32_vec()?,
        ])
    }

    /// The factors of dropout, found by sending ones through the mask itself.
    fn mask(&self) -> Vec<f64> {
        let (tokens, hidden) = (self.case.targets.len(), self.case.hidden);
        let cpu = Cpu::new(1).unwrap();
        let keys = Tensor::from_slice(&cpu, &[tokens, 2], &self.keys).unwrap();
        let mut factors = vec![1f32; tokens * hidden];
        if let Some(mask) = Mask::new(&self.dropout(keys.view()), tokens).unwrap() {
            for (t, row) in factors.chunks_exact_mut(hidden).enumerate() {
                Gate::apply(&mask, t, 0..hidden, row);
            }
        }
        widen(&factors)
    }

    /// The oracle of the projection `[W | B]` of the inputs `[x | s·dropout(x)·Aᵀ]`.
    fn expected(&self) -> [Vec<f64>; 4] {
        let Case {
            hidden, vocabulary, ..
        } = self.case;
        let (tokens, rank, scale) = (self.case.targets.len(), self.rank, f64::from(SCALE));
        let [x, weight] = [&self.case.x, &self.case.weight].map(|values| widen(values));
        let [a, b] = [&self.a, &self.b].map(|values| widen(values));
        let mask = self.mask();
        let dropped = |t: usize, h: usize| mask[t * hidden + h] * x[t * hidden + h];
        let wide = hidden + rank;
        let mut inputs = Vec::new();
        for t in 0..tokens {
            inputs.extend(&x[t * hidden..][..hidden]);
            for p in 0..rank {
                let terms = (0..hidden).map(|h| dropped(t, h) * a[p * hidden + h]);
                inputs.push(scale * terms.sum::<f64>());
            }
        }
        let mut both = Vec::new();
        for v in 0..vocabulary {
            both.extend(&weight[v * hidden..][..hidden]);
            both.extend(&b[v * rank..][..rank]);
        }
        let options = oracle::Options {
            logit_scale: self.case.logit_scale.into(),
            softcap: self.case.softcap.map(f64::from),
        };
        let weights = widen(&self.case.weights);
        let all =
            oracle::forward_backward(&inputs, &both, &self.case.targets, &weights, wide, options);
        let before = f64::from(BEFORE);
        let through = |t: usize, p: usize| scale * all.dx[t * wide + hidden + p];
        let mut dx = Vec::new();
        for t in 0..tokens {
            for h in 0..hidden {
                let terms = (0..rank).map(|p| through(t, p) * a[p * hidden + h]);
                let share = mask[t * hidden + h] * terms.sum::<f64>();
                dx.push(all.dx[t * wide + h] + share);
            }
        }
        let mut da = Vec::new();
        for p in 0..rank {
            for h in 0..hidden {
                let terms = (0..tokens).map(|t| through(t, p) * dropped(t, h));
                da.push(before + terms.sum::<f64>());
            }
        }
        let of_b = |v: usize| &all.dweight[v * wide + hidden..][..rank];
        let db = (0..vocabulary).flat_map(of_b).map(|d| before + d);
        [all.losses, dx, da, db.collect()]
    }

    #[track_caller]
    fn compare<D: LinearCrossEntropy>(&self, device: &D, bound: f64) {
        let got = self.run(device).unwrap();
        for ((got, expected), name) in got.iter().zip(self.expected()).zip(NAMES) {
            let distance = relative_distance(got, &expected);
            // This form fails if the distance is NaN.
            let close = distance <= bound;
            assert!(close, "{name}, dropout {}: {distance:e}", self.probability);
        }
    }
}

fn compare<D: LinearCrossEntropy>(device: &D, dtype: DType, bound: f64) {
    for (shape, rank) in [((1, 1, 2), 1), ((33, 24, 301), 5), ((300, 8, 17), 3)] {
        for probability in [0.0, 0.25] {
            for softcap in [None, Some(3.0)] {
                let mut adapted = Adapted::new(dtype, shape, rank, probability);
                adapted.case.softcap = softcap;
                adapted.compare(device, bound);
            }
        }
    }
}

#[test]
fn factors_are_the_oracle() {
    for (dtype, bound) in ACTIVATIONS.into_iter().zip([3e-6, 2e-2]) {
        for cpu in cpus(2) {
            compare(&cpu, dtype, bound);
        }
    }
}

#[test]
fn factors_on_cuda_are_the_oracle() {
    for (dtype, bound) in ACTIVATIONS.into_iter().zip([3e-6, 2e-2]) {
        compare(cuda(), dtype, bound);
        compare(cuda_with_small_limits(), dtype, bound);
    }
}

#[test]
fn factors_of_other_sizes_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let mut adapted = Adapted::new(DType::F32, (3, 4, 5), 2, 0.0);
    adapted.rank = 3;
    adapted.a = vec![0.0; 12];
    adapted.b = vec![0.0; 15];
    adapted.run(&cpu).unwrap();
    adapted.probability = 1.0;
    let error = adapted.run(&cpu).unwrap_err().to_string();
    assert!(error.contains("dropout.probability"), "{error}");
}
