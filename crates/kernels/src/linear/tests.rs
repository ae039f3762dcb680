//! Linear layers against the f64 oracle, over awkward shapes, types and thread counts.

use super::*;
use half::{bf16, f16};
use tightrope_device::Cpu;
use tightrope_testkit::{Random, assert_close, oracle::linear as oracle, widen};

const SHAPES: [(usize, usize, usize, usize); 9] = [
    // tokens, inputs, outputs, rank
    (0, 3, 4, 2),
    (1, 1, 1, 1),
    (5, 7, 9, 3),
    (6, 16, 16, 8),
    (7, 17, 31, 5),
    (13, 64, 33, 16),
    (65, 257, 47, 9),
    (97, 129, 145, 17),
    (150, 600, 130, 16),
];
const SCALE: f32 = 0.75;
const SALT: u64 = 77;

fn cpu(threads: usize) -> Cpu {
    Cpu::new(threads).unwrap()
}

fn tensor(cpu: &Cpu, shape: &[usize], values: &[f32]) -> Tensor<Cpu> {
    Tensor::from_slice(cpu, shape, values).unwrap()
}

/// Everything that a layer reads, and everything that it wrote.
struct Case {
    shape: Shape,
    rank: usize,
    probability: f32,
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    keys: Vec<u32>,
}

/// `y`, `dx`, `dweight`, `dbias`, `da`, `db`; the sums start from `x`-independent fillings.
#[derive(Debug, PartialEq)]
struct Results([Vec<f32>; 6]);

impl Case {
    fn new(
        (tokens, inputs, outputs, rank): (usize, usize, usize, usize),
        probability: f32,
    ) -> Self {
        let mut random = Random::new((tokens * 31 + inputs) as u64);
        Self {
            shape: Shape {
                tokens,
                inputs,
                outputs,
            },
            rank,
            probability,
            x: random.normal(tokens * inputs, 1.0),
            dy: random.normal(tokens * outputs, 1.0),
            weight: random.normal(outputs * inputs, 1.0),
            bias: random.normal(outputs, 1.0),
            a: random.normal(rank * inputs, 1.0),
            b: random.normal(outputs * rank, 1.0),
            keys: (0..tokens as u32).flat_map(|t| [t / 10, t % 10]).collect(),
        }
    }

    fn run(&self, cpu: &Cpu, dtype: DType, accumulate: bool) -> Results {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let weight_shape = [outputs, inputs];
        let weight = match dtype {
            DType::BF16 => {
                let stored: Vec<bf16> = self.weight.iter().map(|&w| bf16::from_f32(w)).collect();
                Tensor::from_slice(cpu, &weight_shape, &stored).unwrap()
            }
            DType::F16 => {
                let stored: Vec<f16> = self.weight.iter().map(|&w| f16::from_f32(w)).collect();
                Tensor::from_slice(cpu, &weight_shape, &stored).unwrap()
            }
            _ => tensor(cpu, &weight_shape, &self.weight),
        };
        let x = tensor(cpu, &[tokens, inputs], &self.x);
        let dy = tensor(cpu, &[tokens, outputs], &self.dy);
        let bias = tensor(cpu, &[outputs], &self.bias);
        let a = tensor(cpu, &[self.rank, inputs], &self.a);
        let b = tensor(cpu, &[outputs, self.rank], &self.b);
        let keys = Tensor::from_slice(cpu, &[tokens, 2], &self.keys).unwrap();
        let dropout = Some(Dropout {
            probability: self.probability,
            salt: SALT,
            keys: &keys,
        });
        // Overwritten outputs start as NaN, so that reading them shows.
        let filled =
            |shape: &[usize], value: f32| tensor(cpu, shape, &vec![value; shape.iter().product()]);
        let mut y = filled(&[tokens, outputs], f32::NAN);
        let mut xa = filled(&[tokens, self.rank], f32::NAN);
        let mut dyb = filled(&[tokens, self.rank], f32::NAN);
        let mut dx = filled(&[tokens, inputs], if accumulate { 0.5 } else { f32::NAN });
        let mut dweight = filled(&weight_shape, 0.25);
        let mut dbias = filled(&[outputs], 0.25);
        let mut da = filled(&[self.rank, inputs], 0.25);
        let mut db = filled(&[outputs, self.rank], 0.25);
        let forward = Forward {
            x: &x,
            weight: &weight,
            bias: Some(&bias),
            lora: Some(LoraForward {
                a: &a,
                b: &b,
                scale: SCALE,
                dropout,
                xa: &mut xa,
            }),
            y: &mut y,
            shape: self.shape,
        };
        cpu.linear_forward(forward.checked().unwrap()).unwrap();
        let backward = BackwardInput {
            dy: &dy,
            weight: &weight,
            lora: Some(LoraBackwardInput {
                a: &a,
                b: &b,
                scale: SCALE,
                dropout,
                dyb: &mut dyb,
            }),
            dx: Some(&mut dx),
            accumulate,
            shape: self.shape,
        };
        cpu.linear_backward_input(backward.checked().unwrap())
            .unwrap();
        let backward = BackwardWeights {
            x: &x,
            dy: &dy,
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            lora: Some(LoraBackwardWeights {
                scale: SCALE,
                dropout,
                xa: &xa,
                dyb: &dyb,
                da: &mut da,
                db: &mut db,
            }),
            shape: self.shape,
        };
        cpu.linear_backward_weights(backward.checked().unwrap())
            .unwrap();
        Results([y, dx, dweight, dbias, da, db].map(|t| t.to_f32_vec().unwrap()))
    }

    /// The factors of dropout, found by sending ones through the mask itself.
    fn mask(&self, cpu: &Cpu) -> Vec<f64> {
        let Shape { tokens, inputs, .. } = self.shape;
        let keys = Tensor::from_slice(cpu, &[tokens, 2], &self.keys).unwrap();
        let dropout = Dropout {
            probability: self.probability,
            salt: SALT,
            keys: &keys,
        };
        let mut factors = vec![1f32; tokens * inputs];
        if let Some(mask) = dropout::Mask::new(&Some(dropout), tokens).unwrap() {
            for (t, row) in factors.chunks_exact_mut(inputs.max(1)).enumerate() {
                crate::cpu::matmul::Gate::apply(&mask, t, 0..inputs, row);
            }
        }
        widen(&factors)
    }

    fn expected(&self, cpu: &Cpu, round: impl Fn(f32) -> f32, accumulate: bool) -> [Vec<f64>; 6] {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let rank = self.rank;
        let weight: Vec<f64> = self.weight.iter().map(|&w| round(w).into()).collect();
        let [x, dy, a, b] = [&self.x, &self.dy, &self.a, &self.b].map(|v| widen(v));
        let mask = self.mask(cpu);
        let scale = f64::from(SCALE);
        let lora = oracle::Lora {
            a: &a,
            b: &b,
            scale,
            mask: &mask,
        };
        let sizes = (tokens, inputs, outputs);
        let y = oracle::forward(&x, &weight, Some(&widen(&self.bias)), Some(lora), sizes);
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
            *dx += scale * mask[index] * through[index] + if accumulate { 0.5 } else { 0.0 };
        }
        let add = |values: Vec<f64>, scale: f64| values.iter().map(|v| 0.25 + scale * v).collect();
        let dweight = add(
            oracle::product((outputs, tokens, inputs), |o, t| dy_at(t, o), x_at),
            1.0,
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
}

/// Sums of at most ~600 products of standard normals (~10⁵ in the adapter's two-step sums); see
/// `docs/numerics.md`.
#[track_caller]
fn compare(got: &Results, expected: &[Vec<f64>; 6]) {
    let names = ["y", "dx", "dweight", "dbias", "da", "db"];
    for ((name, got), expected) in names.iter().zip(&got.0).zip(expected) {
        let rms =
            (expected.iter().map(|e| e * e).sum::<f64>() / expected.len().max(1) as f64).sqrt();
        assert_close(name, got, expected, 4e-6 * rms.max(1.0), 4e-6);
    }
}

#[test]
fn every_result_matches_the_oracle() {
    let cpu = cpu(2);
    for shape in SHAPES {
        for probability in [0.0, 0.3] {
            for accumulate in [false, true] {
                let case = Case::new(shape, probability);
                let expected = case.expected(&cpu, |w| w, accumulate);
                compare(&case.run(&cpu, DType::F32, accumulate), &expected);
            }
        }
    }
}

#[test]
fn stored_weights_are_read_exactly() {
    let cpu = cpu(2);
    let case = Case::new((13, 65, 33, 4), 0.0);
    let bf16 = case.expected(&cpu, |w| bf16::from_f32(w).to_f32(), false);
    compare(&case.run(&cpu, DType::BF16, false), &bf16);
    let f16 = case.expected(&cpu, |w| f16::from_f32(w).to_f32(), false);
    compare(&case.run(&cpu, DType::F16, false), &f16);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for shape in SHAPES {
        let case = Case::new(shape, 0.3);
        let one = case.run(&cpu(1), DType::F32, true);
        for threads in [2, 3] {
            assert_eq!(one, case.run(&cpu(threads), DType::F32, true), "{shape:?}");
        }
    }
}

#[test]
fn a_token_has_the_same_bits_wherever_it_stands() {
    let cpu = cpu(2);
    let (inputs, outputs) = (300, 70);
    let full = Case::new((61, inputs, outputs, 6), 0.3);
    let whole = full.run(&cpu, DType::F32, false);
    for (start, len) in [(0, 1), (60, 1), (7, 3), (20, 41)] {
        let mut part = Case::new((61, inputs, outputs, 6), 0.3);
        part.shape.tokens = len;
        part.x = full.x[start * inputs..][..len * inputs].to_vec();
        part.dy = full.dy[start * outputs..][..len * outputs].to_vec();
        part.keys = full.keys[start * 2..][..len * 2].to_vec();
        let alone = part.run(&cpu, DType::F32, false);
        assert_eq!(
            alone.0[0],
            whole.0[0][start * outputs..][..len * outputs],
            "y at {start}"
        );
        assert_eq!(
            alone.0[1],
            whole.0[1][start * inputs..][..len * inputs],
            "dx at {start}"
        );
    }
}

#[test]
fn a_nan_reaches_everything_that_depends_on_it() {
    let cpu = cpu(2);
    let mut case = Case::new((13, 20, 30, 4), 0.0);
    case.x[5 * 20 + 3] = f32::NAN;
    let Results([y, ..]) = case.run(&cpu, DType::F32, false);
    for (index, y) in y.iter().enumerate() {
        assert_eq!(y.is_nan(), index / 30 == 5, "y[{index}] = {y}");
    }
}

#[test]
fn only_the_bottleneck_is_computed_without_dx() {
    let cpu = cpu(1);
    let case = Case::new((3, 4, 5, 2), 0.0);
    let [dy, weight, a, b] = [
        tensor(&cpu, &[3, 5], &case.dy),
        tensor(&cpu, &[5, 4], &case.weight),
        tensor(&cpu, &[2, 4], &case.a),
        tensor(&cpu, &[5, 2], &case.b),
    ];
    let mut dyb = tensor(&cpu, &[3, 2], &[f32::NAN; 6]);
    let args = BackwardInput {
        dy: &dy,
        weight: &weight,
        lora: Some(LoraBackwardInput {
            a: &a,
            b: &b,
            scale: SCALE,
            dropout: None,
            dyb: &mut dyb,
        }),
        dx: None,
        accumulate: false,
        shape: case.shape,
    };
    cpu.linear_backward_input(args.checked().unwrap()).unwrap();
    let expected = oracle::product(
        (3, 5, 2),
        |t, o| case.dy[t * 5 + o].into(),
        |o, r| case.b[o * 2 + r].into(),
    );
    assert_close("dyb", &dyb.to_f32_vec().unwrap(), &expected, 1e-5, 1e-5);
}

#[test]
fn dropout_keeps_the_right_share_without_visible_order() {
    let (tokens, inputs) = (200, 500);
    for probability in [0.05f32, 0.5, 0.9] {
        let case = Case::new((tokens, inputs, 1, 1), probability);
        let mask = case.mask(&cpu(1));
        let (n, p) = ((tokens * inputs) as f64, f64::from(probability));
        let kept = mask.iter().filter(|&&m| m != 0.0).count() as f64;
        // Five standard deviations of a binomial; the inputs are fixed, so this never flickers.
        let bound = 5.0 * (n * p * (1.0 - p)).sqrt();
        assert!(
            (kept - n * (1.0 - p)).abs() <= bound,
            "{kept} of {n} at {p}"
        );
        assert!(
            mask.iter()
                .all(|&m| m == 0.0 || (m * (1.0 - p) - 1.0).abs() < 1e-6)
        );
        // Neighbours in a row, in a column, and across the diagonal are independent.
        for lag in [1, 2, 16, inputs, inputs + 1] {
            let both = mask
                .windows(lag + 1)
                .filter(|w| w[0] != 0.0 && w[lag] != 0.0)
                .count() as f64;
            let (n, q) = (n - lag as f64, (1.0 - p) * (1.0 - p));
            // Twice the binomial deviation, because pairs overlap.
            let bound = 10.0 * (n * q * (1.0 - q)).sqrt();
            assert!(
                (both - n * q).abs() <= bound,
                "lag {lag}: {both} of {n} at {p}"
            );
        }
    }
}

#[test]
fn dropout_differs_by_salt_and_follows_the_token() {
    let cpu = cpu(1);
    let row = |salt, keys: [u32; 2]| {
        let keys = Tensor::from_slice(&cpu, &[1, 2], &keys).unwrap();
        let dropout = Some(Dropout {
            probability: 0.5,
            salt,
            keys: &keys,
        });
        let mut values = vec![1f32; 64];
        let mask = dropout::Mask::new(&dropout, 1).unwrap().unwrap();
        crate::cpu::matmul::Gate::apply(&mask, 0, 0..64, &mut values);
        // The same columns in two parts.
        let mut parts = vec![1f32; 64];
        crate::cpu::matmul::Gate::apply(&mask, 0, 0..7, &mut parts[..7]);
        crate::cpu::matmul::Gate::apply(&mask, 0, 7..64, &mut parts[7..]);
        assert_eq!(values, parts);
        values
    };
    assert_eq!(row(1, [3, 4]), row(1, [3, 4]));
    assert_ne!(row(1, [3, 4]), row(2, [3, 4]));
    assert_ne!(row(1, [3, 4]), row(1, [4, 3]));
    assert_ne!(row(1, [3, 4]), row(1, [3, 5]));
}
