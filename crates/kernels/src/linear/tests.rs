//! Linear layers against the f64 oracle, over awkward shapes, types, devices and thread counts.

use super::*;
use tightrope_device::{Cpu, IndexWidth};
use tightrope_testkit::{
    Random, assert_close, cuda, oracle::linear as oracle, rounded, rounding, tensor, unit, widen,
};

const SHAPES: [(usize, usize, usize, usize); 9] = [
    // tokens, inputs, outputs, rank
    (0, 3, 4, 2),
    (1, 1, 1, 1),
    (5, 7, 9, 3),
    (6, 16, 16, 8),
    (7, 17, 31, 5),
    (13, 64, 33, 16),
    (65, 257, 47, 9),
    (300, 129, 145, 17),
    (150, 600, 130, 16),
];
const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
const SCALE: f32 = 0.75;
const SALT: u64 = 77;

fn cpu(threads: usize) -> Cpu {
    Cpu::new(threads).unwrap()
}

/// Everything that a layer reads.
#[derive(Clone)]
struct Case {
    shape: Shape,
    rank: usize,
    probability: f32,
    /// Of the activations, and of the stored weight.
    types: (DType, DType),
    accumulate: bool,
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

const NAMES: [&str; 6] = ["y", "dx", "dweight", "dbias", "da", "db"];

impl Case {
    fn new(shape: (usize, usize, usize, usize), probability: f32) -> Self {
        Self::of((DType::F32, DType::F32), shape, probability)
    }

    fn of(
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
            x: rounded(&numbers(tokens * inputs), types.0),
            dy: rounded(&numbers(tokens * outputs), types.0),
            weight: rounded(&numbers(outputs * inputs), types.1),
            bias: numbers(outputs),
            a: numbers(rank * inputs),
            b: numbers(outputs * rank),
            keys: (0..tokens as u32).flat_map(|t| [t / 10, t % 10]).collect(),
        }
    }

    fn run<D: Linear>(&self, device: &D) -> Results {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let rank = self.rank;
        let activations =
            |shape: &[usize], values: &[f32]| tensor(device, self.types.0, shape, values);
        let f32s = |shape: &[usize], values: &[f32]| tensor(device, DType::F32, shape, values);
        let weight = tensor(device, self.types.1, &[outputs, inputs], &self.weight);
        let x = activations(&[tokens, inputs], &self.x);
        let dy = activations(&[tokens, outputs], &self.dy);
        let bias = f32s(&[outputs], &self.bias);
        let a = f32s(&[rank, inputs], &self.a);
        let b = f32s(&[outputs, rank], &self.b);
        let keys = Tensor::from_slice(device, &[tokens, 2], &self.keys).unwrap();
        let dropout = Some(Dropout {
            probability: self.probability,
            salt: SALT,
            keys: &keys,
        });
        // Overwritten outputs start as NaN, so that reading them shows.
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
        device.linear_forward(forward.checked().unwrap()).unwrap();
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
            accumulate: self.accumulate,
            shape: self.shape,
        };
        device
            .linear_backward_input(backward.checked().unwrap())
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
        device
            .linear_backward_weights(backward.checked().unwrap())
            .unwrap();
        Results([y, dx, dweight, dbias, da, db].map(|t| t.to_f32_vec().unwrap()))
    }

    /// The factors of dropout, found by sending ones through the mask itself.
    fn mask(&self) -> Vec<f64> {
        let Shape { tokens, inputs, .. } = self.shape;
        let keys = Tensor::from_slice(&cpu(1), &[tokens, 2], &self.keys).unwrap();
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

    /// With `value` applied to every number that is read: the identity, or the magnitude, which
    /// gives the sums of the magnitudes of all terms.
    fn oracle(&self, value: impl Fn(f64) -> f64) -> [Vec<f64>; 6] {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let rank = self.rank;
        let read = |values: &[f32]| -> Vec<f64> { widen(values).into_iter().map(&value).collect() };
        let [x, dy, a, b] = [&self.x, &self.dy, &self.a, &self.b].map(|v| read(v));
        let (weight, bias) = (read(&self.weight), read(&self.bias));
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

    fn expected(&self) -> [Vec<f64>; 6] {
        self.oracle(|v| v)
    }

    /// Compares with the oracle within what rounding can do, in whichever order sums are formed.
    ///
    /// Relative to the sum of the magnitudes of its terms, a sum of `n` products is off by at most
    /// `n + 8` f32 roundings (products, additions, and the few factors). Where the activations are
    /// narrower, so is what goes into a product: in `y` a share of the adapter is made of four
    /// rounded numbers (`dropout(x)`, `A`, `xa`, `B`) and is itself rounded, in `dx` of three and
    /// rounded, in `da` and `db` of three; one more covers their products. At last the result is
    /// rounded to its type.
    #[track_caller]
    fn compare(&self, got: &Results) {
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

/// Sums of at most ~600 products of standard normals (~10⁵ in the adapter's two-step sums); see
/// `docs/numerics.md`. Closer than what could happen at worst.
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
    for stored in TYPES {
        let case = Case::of((DType::F32, stored), (13, 65, 33, 4), 0.0);
        compare_closely(&case.run(&cpu(2)), &case.expected());
    }
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for (j, dtype) in TYPES.into_iter().enumerate() {
            for option in 0..4 {
                let types = (dtype, TYPES[(i + j) % 3]);
                let mut case = Case::of(types, shape, if option & 1 == 0 { 0.0 } else { 0.3 });
                case.accumulate = option & 2 != 0;
                case.compare(&case.run(cuda()));
            }
        }
    }
}

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda().forcing(IndexWidth::Wide);
    for (shape, dtype) in SHAPES.iter().flat_map(|&s| TYPES.map(|t| (s, t))) {
        let case = Case::of((dtype, dtype), shape, 0.3);
        assert_eq!(case.run(cuda()), case.run(&wide), "{shape:?}");
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
    compare_places(&cpu(2), DType::F32);
    for dtype in TYPES {
        compare_places(cuda(), dtype);
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
    compare(cuda());
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
    compare(cuda());
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
            x: &x,
            weight: &weight,
            bias: None,
            lora: None,
            y: &mut y,
            shape,
        };
        device.linear_forward(args.checked().unwrap()).unwrap();
        let args = BackwardInput {
            dy: &dy,
            weight: &weight,
            lora: None,
            dx: Some(&mut dx),
            accumulate: false,
            shape,
        };
        device
            .linear_backward_input(args.checked().unwrap())
            .unwrap();
        let args = BackwardWeights {
            x: &x,
            dy: &dy,
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
    compare(&cpu(1), DType::F32);
    for dtype in TYPES {
        compare(cuda(), dtype);
    }
}

/// `dropout(1)`, by way of an adapter that is the identity, and the same factors of `dx`, whose
/// gradient before the mask is 1.
fn factors<D: Linear>(device: &D, dtype: DType, inputs: usize, keys: &[u32]) -> [Vec<f32>; 2] {
    let tokens = keys.len() / 2;
    let shape = |outputs| Shape {
        tokens,
        inputs,
        outputs,
    };
    let f32s = |shape: &[usize], value: f32| {
        tensor(
            device,
            DType::F32,
            shape,
            &vec![value; shape.iter().product()],
        )
    };
    let ones = |shape: &[usize]| {
        let values = vec![1.0; shape.iter().product()];
        tensor(device, dtype, shape, &values)
    };
    let keys = Tensor::from_slice(device, &[tokens, 2], keys).unwrap();
    let dropout = Some(Dropout {
        probability: 0.4,
        salt: u64::MAX - 5,
        keys: &keys,
    });
    let identity: Vec<f32> = (0..inputs * inputs)
        .map(|i| f32::from(u8::from(i % (inputs + 1) == 0)))
        .collect();
    let identity = tensor(device, DType::F32, &[inputs, inputs], &identity);
    let mut xa = f32s(&[tokens, inputs], f32::NAN);
    let args = Forward {
        x: &ones(&[tokens, inputs]),
        weight: &f32s(&[1, inputs], 0.0),
        bias: None,
        lora: Some(LoraForward {
            a: &identity,
            b: &f32s(&[1, inputs], 0.0),
            scale: 1.0,
            dropout,
            xa: &mut xa,
        }),
        y: &mut ones(&[tokens, 1]),
        shape: shape(1),
    };
    device.linear_forward(args.checked().unwrap()).unwrap();
    let mut dx = ones(&[tokens, inputs]);
    let args = BackwardInput {
        dy: &ones(&[tokens, 1]),
        weight: &f32s(&[1, inputs], 0.0),
        lora: Some(LoraBackwardInput {
            a: &f32s(&[1, inputs], 1.0),
            b: &f32s(&[1, 1], 1.0),
            scale: 1.0,
            dropout,
            dyb: &mut f32s(&[tokens, 1], 0.0),
        }),
        dx: Some(&mut dx),
        accumulate: false,
        shape: shape(1),
    };
    device
        .linear_backward_input(args.checked().unwrap())
        .unwrap();
    [xa, dx].map(|t| t.to_f32_vec().unwrap())
}

#[test]
fn every_device_drops_the_same_elements() {
    let mut random = Random::new(9);
    for inputs in [1, 7, 64, 200] {
        let keys: Vec<u32> = (0..262).map(|_| random.bits() as u32).collect();
        let [expected, of_dx] = factors(&cpu(2), DType::F32, inputs, &keys);
        assert_eq!(expected, of_dx);
        assert!(inputs == 1 || expected.contains(&0.0) && expected.contains(&(1.0 / 0.6)));
        for dtype in TYPES {
            let expected = rounded(&expected, dtype);
            let [xa, dx] = factors(cuda(), dtype, inputs, &keys);
            assert_eq!(xa, expected);
            assert_eq!(dx, expected);
        }
    }
}

#[test]
fn activations_share_a_type_which_is_f32_on_the_cpu() {
    let cpu = cpu(1);
    let zeros = |dtype, shape: &[usize]| Tensor::zeros(&cpu, dtype, shape).unwrap();
    let (x, weight) = (zeros(DType::BF16, &[2, 3]), zeros(DType::F32, &[4, 3]));
    let forward = |dtype| {
        let mut y = zeros(dtype, &[2, 4]);
        let args = Forward {
            x: &x,
            weight: &weight,
            bias: None,
            lora: None,
            y: &mut y,
            shape: Shape {
                tokens: 2,
                inputs: 3,
                outputs: 4,
            },
        };
        cpu.linear_forward(args.checked()?)
    };
    let error = forward(DType::F32).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "y", .. }));
    let error = forward(DType::BF16).unwrap_err();
    assert!(error.to_string().contains("expected a tensor of f32"));
}

#[test]
fn dropout_keeps_the_right_share_without_visible_order() {
    let (tokens, inputs) = (200, 500);
    for probability in [0.05f32, 0.5, 0.9] {
        let case = Case::new((tokens, inputs, 1, 1), probability);
        let mask = case.mask();
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
