//! Norm and rotation of heads against the f64 oracle: awkward shapes, threads, places, checks.

use super::*;
use crate::rms_norm::{self, RmsNorm};
use tightrope_device::{Cpu, IndexWidth};
use tightrope_testkit::{
    Random, cuda, finite_difference, oracle, rounded, rounding, tensor, unit, widen,
};

const EPS: f32 = 1e-5;
const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

#[derive(Clone, Copy, Debug)]
struct Shape {
    tokens: usize,
    /// Of queries and of keys.
    heads: [usize; 2],
    head_dim: usize,
    rotary_dim: usize,
}

const fn shape(tokens: usize, heads: [usize; 2], head_dim: usize, rotary_dim: usize) -> Shape {
    Shape {
        tokens,
        heads,
        head_dim,
        rotary_dim,
    }
}

/// With and without accesses of 16 bytes, with heads of one lane to more than a warp's, with
/// elements that do not rotate, with one block and several.
const SHAPES: [Shape; 13] = [
    shape(0, [2, 1], 16, 16),
    shape(1, [1, 1], 2, 2),
    shape(4, [2, 3], 1, 0),
    shape(2, [2, 1], 24, 0),
    shape(3, [0, 2], 8, 8),
    shape(3, [2, 0], 16, 16),
    shape(3, [4, 2], 16, 16),
    shape(5, [3, 1], 31, 10),
    shape(2, [7, 5], 96, 64),
    shape(9, [6, 2], 128, 128),
    shape(2, [1, 1], 1104, 1088),
    shape(1, [2, 1], 333, 330),
    shape(301, [5, 2], 32, 32),
];

#[derive(Clone, Debug)]
struct Case {
    /// Of the activations.
    dtype: DType,
    shape: Shape,
    plus_one: bool,
    /// Of each pair of each token, and its cosines and sines.
    angles: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    q: Side,
    k: Side,
}

/// Queries or keys.
#[derive(Clone, Debug)]
struct Side {
    heads: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    dy: Vec<f32>,
    /// What `dweight` holds before.
    before: Vec<f32>,
    frozen: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Results {
    y: Vec<f32>,
    rstd: Vec<f32>,
    dx: Vec<f32>,
    dweight: Vec<f32>,
}

impl Case {
    fn new(dtype: DType, shape: Shape, plus_one: bool) -> Self {
        let Shape {
            tokens, head_dim, ..
        } = shape;
        let mut random = Random::new((tokens * 10_007 + head_dim * 8) as u64);
        let angles = random.normal(tokens * shape.rotary_dim / 2, 2.0);
        let table = |f: fn(f64) -> f64| angles.iter().map(|&a| f(f64::from(a)) as f32).collect();
        let [cos, sin] = [table(f64::cos), table(f64::sin)];
        let mut side = |heads: usize| {
            let mut numbers = |len| rounded(&random.normal(len, 1.0), dtype);
            let len = tokens * heads * head_dim;
            Side {
                heads,
                x: numbers(len),
                weight: numbers(head_dim),
                dy: numbers(len),
                before: numbers(head_dim),
                frozen: false,
            }
        };
        let [q, k] = shape.heads.map(&mut side);
        Self {
            dtype,
            shape,
            plus_one,
            angles,
            cos,
            sin,
            q,
            k,
        }
    }

    /// Of queries and of keys.
    fn run<D: QkNormRope>(&self, device: &D) -> [Results; 2] {
        let all = |values: &[f32]| tensor(device, self.dtype, &[values.len()], values);
        let f32s = |values: &[f32]| tensor(device, DType::F32, &[values.len()], values);
        let (cos, sin) = (f32s(&self.cos), f32s(&self.sin));
        let Shape {
            tokens,
            head_dim,
            rotary_dim,
            ..
        } = self.shape;
        let sides = [&self.q, &self.k];
        let x = sides.map(|side| all(&side.x));
        let weight = sides.map(|side| f32s(&side.weight));
        let [mut q_y, mut k_y] = sides.map(|side| all(&vec![7.0; side.x.len()]));
        let [mut q_rstd, mut k_rstd] = sides.map(|side| f32s(&vec![7.0; tokens * side.heads]));
        let args = Forward {
            q: HeadsForward {
                x: &x[0],
                weight: &weight[0],
                y: &mut q_y,
                rstd: &mut q_rstd,
                heads: self.q.heads,
            },
            k: HeadsForward {
                x: &x[1],
                weight: &weight[1],
                y: &mut k_y,
                rstd: &mut k_rstd,
                heads: self.k.heads,
            },
            plus_one: self.plus_one,
            eps: EPS,
            cos: &cos,
            sin: &sin,
            tokens,
            head_dim,
            rotary_dim,
        };
        device
            .qk_norm_rope_forward(args.checked().unwrap())
            .unwrap();
        let [mut q_dx, mut k_dx] = sides.map(|side| all(&side.dy));
        let [mut q_dweight, mut k_dweight] = sides.map(|side| f32s(&side.before));
        let args = Backward {
            q: HeadsBackward {
                dx: &mut q_dx,
                x: &x[0],
                rstd: &q_rstd,
                weight: &weight[0],
                dweight: (!self.q.frozen).then_some(&mut q_dweight),
                heads: self.q.heads,
            },
            k: HeadsBackward {
                dx: &mut k_dx,
                x: &x[1],
                rstd: &k_rstd,
                weight: &weight[1],
                dweight: (!self.k.frozen).then_some(&mut k_dweight),
                heads: self.k.heads,
            },
            plus_one: self.plus_one,
            cos: &cos,
            sin: &sin,
            tokens,
            head_dim,
            rotary_dim,
        };
        device
            .qk_norm_rope_backward(args.checked().unwrap())
            .unwrap();
        let results = |tensors: [Tensor<D>; 4]| {
            let [y, rstd, dx, dweight] = tensors.map(|tensor| tensor.to_f32_vec().unwrap());
            Results {
                y,
                rstd,
                dx,
                dweight,
            }
        };
        [
            results([q_y, q_rstd, q_dx, q_dweight]),
            results([k_y, k_rstd, k_dx, k_dweight]),
        ]
    }

    /// Rotates heads in f64, or with `sign` −1 back.
    fn rotate(&self, x: &mut [f64], heads: usize, sign: f64) {
        let (dim, pairs) = (self.shape.head_dim, self.shape.rotary_dim / 2);
        for (head, x) in x.chunks_mut(dim).enumerate() {
            let angles = &self.angles[head / heads * pairs..][..pairs];
            let angles = angles.iter().map(|&angle| sign * f64::from(angle));
            let pairs = angles.enumerate().map(|(i, angle)| (i, i + pairs, angle));
            oracle::rope::rotate(x, pairs, 1.0);
        }
    }

    /// What a rotation's terms add up to if all have one sign.
    fn rotated_sizes(&self, x: &[f64], heads: usize) -> Vec<f64> {
        let (dim, pairs) = (self.shape.head_dim, self.shape.rotary_dim / 2);
        let size = |index: usize| {
            let i = index % dim;
            if i >= 2 * pairs {
                return x[index].abs();
            }
            let angle = self.angles[index / dim / heads * pairs + i % pairs];
            let partner = x[index - i + (i + pairs) % (2 * pairs)];
            let (sin, cos) = f64::from(angle).sin_cos();
            (x[index] * cos).abs() + (partner * sin).abs()
        };
        (0..x.len()).map(size).collect()
    }

    fn factors(&self, side: &Side) -> Vec<f64> {
        let offset = f64::from(u8::from(self.plus_one));
        let weight = side.weight.iter();
        weight.map(|&w| f64::from(w) + offset).collect()
    }

    /// `y` and `rstd`.
    fn oracle_forward(&self, x: &[f64], w: &[f64], heads: usize) -> (Vec<f64>, Vec<f64>) {
        let (mut y, rstd) = oracle::rms_norm::forward(x, w, f64::from(EPS));
        self.rotate(&mut y, heads, 1.0);
        (y, rstd)
    }

    /// `dx` and `dw`.
    fn oracle_backward(
        &self,
        dy: &[f64],
        x: &[f64],
        w: &[f64],
        heads: usize,
    ) -> (Vec<f64>, Vec<f64>) {
        let mut dy = dy.to_vec();
        self.rotate(&mut dy, heads, -1.0);
        oracle::rms_norm::backward(&dy, x, w, f64::from(EPS))
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

fn compare_with_the_oracle<D: QkNormRope>(device: &D, dtype: DType) {
    for (shape, plus_one) in SHAPES.iter().flat_map(|&s| [(s, false), (s, true)]) {
        let case = Case::new(dtype, shape, plus_one);
        let results = case.run(device);
        for (side, got) in [&case.q, &case.k].into_iter().zip(&results) {
            compare_side(&case, side, got);
        }
    }
}

fn compare_side(case: &Case, side: &Side, got: &Results) {
    let (u, dim, heads, dtype) = (
        unit(DType::F32),
        case.shape.head_dim,
        side.heads,
        case.dtype,
    );
    // Of rstd: as RMSNorm alone.
    let error = (dim as f64 / 32.0 + 12.0) * u;
    // Of a rotation: tables rounded once, two products and a sum.
    let turning = 4.0 * u;
    let w = case.factors(side);
    let (x, dy) = (widen(&side.x), widen(&side.dy));
    let (y, rstd) = case.oracle_forward(&x, &w, heads);
    assert_within("rstd", &got.rstd, &rstd, |row| error * rstd[row]);
    let (normed, _) = oracle::rms_norm::forward(&x, &w, f64::from(EPS));
    let sizes = case.rotated_sizes(&normed, heads);
    assert_within("y", &got.y, &y, |i| {
        let tolerance = (error + turning) * sizes[i];
        tolerance + rounding(dtype, y[i].abs() + tolerance)
    });

    let (dx, mut dw) = case.oracle_backward(&dy, &x, &w, heads);
    // Terms of dx may cancel: relative to what they would be if all had one sign.
    let d = case.rotated_sizes(&dy, heads);
    let row_size = |row: usize| {
        let range = row * dim..(row + 1) * dim;
        let g = d[range.clone()].iter().zip(&w).map(|(d, w)| (d * w).abs());
        let n = x[range].iter().map(|x| (x * rstd[row]).abs());
        let (g, n): (Vec<f64>, Vec<f64>) = (g.collect(), n.collect());
        let mean: f64 = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / dim as f64;
        let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        rstd[row] * (largest(&g) + largest(&n) * mean)
    };
    let sizes: Vec<f64> = (0..rstd.len()).map(row_size).collect();
    assert_within("dx", &got.dx, &dx, |i| {
        // The error of rstd three times, and that of the sum of products.
        let tolerance = (4.0 * error + turning) * sizes[i / dim];
        tolerance + rounding(dtype, dx[i].abs() + tolerance)
    });
    // A sum over heads, each addition rounded once: relative to the sum of the magnitudes.
    let mut size = vec![0.0; dim];
    for (i, (d, x)) in d.iter().zip(&x).enumerate() {
        size[i % dim] += (d * x * rstd[i / dim]).abs();
    }
    for (dw, &before) in dw.iter_mut().zip(&side.before) {
        *dw += f64::from(before);
    }
    let additions = (rstd.len() as f64 + 2.0) * u + error + turning;
    assert_within("dweight", &got.dweight, &dw, |i| {
        additions * (size[i] + f64::from(side.before[i]).abs())
    });
}

#[test]
fn the_cpu_is_the_oracle() {
    compare_with_the_oracle(&Cpu::new(2).unwrap(), DType::F32);
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    for dtype in FLOATS {
        compare_with_the_oracle(cuda(), dtype);
    }
}

#[test]
fn the_oracles_backward_is_the_derivative_of_its_forward() {
    let case = Case::new(DType::F32, shape(3, [2, 1], 9, 6), true);
    let (x, w, dy) = (widen(&case.q.x), case.factors(&case.q), widen(&case.q.dy));
    let loss = |x: &[f64], w: &[f64]| -> f64 {
        let (y, _) = case.oracle_forward(x, w, 2);
        y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
    };
    let (dx, dw) = case.oracle_backward(&dy, &x, &w, 2);
    let numeric = [
        finite_difference(&x, |x| loss(x, &w)),
        finite_difference(&w, |w| loss(&x, w)),
    ];
    for (analytic, numeric) in [dx, dw].iter().zip(&numeric) {
        for (a, n) in analytic.iter().zip(numeric) {
            assert!((a - n).abs() < 1e-7, "{a} {n}");
        }
    }
}

/// The norm, and the rotation after it, as two operations.
#[test]
fn the_cpu_has_the_bits_of_both_operations_in_sequence() {
    let cpu = Cpu::new(2).unwrap();
    for shape in SHAPES {
        let case = Case::new(DType::F32, shape, true);
        let results = case.run(&cpu);
        for (side, got) in [&case.q, &case.k].into_iter().zip(&results) {
            assert_eq!(compose(&cpu, &case, side), *got);
        }
    }
}

fn compose(cpu: &Cpu, case: &Case, side: &Side) -> Results {
    let (dim, pairs) = (case.shape.head_dim, case.shape.rotary_dim / 2);
    let rows = case.shape.tokens * side.heads;
    let rotate = |x: &mut [f32], sign: f32| {
        for (row, x) in x.chunks_mut(dim).enumerate() {
            let start = row / side.heads * pairs;
            for i in 0..pairs {
                let (c, s) = (case.cos[start + i], sign * case.sin[start + i]);
                let (a, b) = (x[i], x[i + pairs]);
                x[i] = a.mul_add(c, -(b * s));
                x[i + pairs] = b.mul_add(c, a * s);
            }
        }
    };
    let tensor = |values: &[f32]| Tensor::from_slice(cpu, &[values.len()], values).unwrap();
    let (x, weight) = (tensor(&side.x), tensor(&side.weight));
    let (mut y, mut rstd) = (tensor(&side.x), tensor(&vec![7.0; rows]));
    let args = rms_norm::Forward {
        x: &x,
        residual: None,
        weight: &weight,
        plus_one: case.plus_one,
        eps: EPS,
        y: &mut y,
        rstd: &mut rstd,
        rows,
        dim,
    };
    cpu.rms_norm_forward(args.checked().unwrap()).unwrap();
    rotate(y.as_mut_slice().unwrap(), 1.0);
    let (mut dy, mut dx, mut dweight) = (tensor(&side.dy), tensor(&side.x), tensor(&side.before));
    rotate(dy.as_mut_slice().unwrap(), -1.0);
    let args = rms_norm::Backward {
        dy: &dy,
        x: &x,
        rstd: &rstd,
        weight: &weight,
        plus_one: case.plus_one,
        dx: &mut dx,
        accumulate: false,
        dweight: Some(&mut dweight),
        rows,
        dim,
    };
    cpu.rms_norm_backward(args.checked().unwrap()).unwrap();
    let [y, rstd, dx, dweight] = [y, rstd, dx, dweight].map(|tensor| tensor.to_vec().unwrap());
    Results {
        y,
        rstd,
        dx,
        dweight,
    }
}

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda().forcing(IndexWidth::Wide);
    for (shape, dtype) in SHAPES.iter().flat_map(|&s| FLOATS.map(|d| (s, d))) {
        let case = Case::new(dtype, shape, false);
        assert_eq!(case.run(cuda()), case.run(&wide));
    }
}

#[test]
fn frozen_weights_change_no_bit_of_the_rest() {
    check_frozen(&Cpu::new(2).unwrap());
    check_frozen(cuda());
}

fn check_frozen<D: QkNormRope>(device: &D) {
    for shape in SHAPES {
        let mut case = Case::new(DType::F32, shape, false);
        let trained = case.run(device);
        for frozen in [[true, false], [false, true], [true, true]] {
            [case.q.frozen, case.k.frozen] = frozen;
            let mut expected = trained.clone();
            for (expected, side) in expected.iter_mut().zip([&case.q, &case.k]) {
                if side.frozen {
                    expected.dweight.clone_from(&side.before);
                }
            }
            assert_eq!(case.run(device), expected);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let case = Case::new(DType::F32, shape(2001, [3, 1], 32, 30), false);
    let run = |threads| case.run(&Cpu::new(threads).unwrap());
    let expected = run(1);
    assert_eq!(run(2), expected);
    assert_eq!(run(3), expected);
}

#[test]
fn a_token_has_the_same_bits_wherever_it_stands_and_nan_stays_in_its_head() {
    check_places(&Cpu::new(2).unwrap(), DType::F32);
    for dtype in FLOATS {
        check_places(cuda(), dtype);
    }
}

fn check_places<D: QkNormRope>(device: &D, dtype: DType) {
    let whole = shape(129, [3, 2], 48, 32);
    let case = Case::new(dtype, whole, true);
    let clean = case.run(device);
    let (dim, pairs) = (whole.head_dim, whole.rotary_dim / 2);
    for token in [0, 1, 63, 64, 128] {
        let mut alone = case.clone();
        alone.shape.tokens = 1;
        let table = |values: &[f32]| values[token * pairs..(token + 1) * pairs].to_vec();
        (alone.cos, alone.sin) = (table(&case.cos), table(&case.sin));
        let at = |heads: usize| token * heads * dim..(token + 1) * heads * dim;
        for side in [&mut alone.q, &mut alone.k] {
            side.x = side.x[at(side.heads)].to_vec();
            side.dy = side.dy[at(side.heads)].to_vec();
        }
        for ((alone, clean), heads) in alone.run(device).iter().zip(&clean).zip(whole.heads) {
            assert_eq!(alone.y, clean.y[at(heads)]);
            assert_eq!(alone.dx, clean.dx[at(heads)]);
            assert_eq!(alone.rstd, clean.rstd[token * heads..(token + 1) * heads]);
        }
    }
    // Head 1 of token 100.
    let (row, mut case) = (100 * 3 + 1, case);
    case.q.x[row * dim + 40] = f32::NAN;
    let [q, k] = case.run(device);
    assert_eq!(k, clean[1]);
    for (i, (y, dx)) in q.y.iter().zip(&q.dx).enumerate() {
        if i / dim == row {
            assert!(y.is_nan() && dx.is_nan());
        } else {
            assert_eq!((*y, *dx), (clean[0].y[i], clean[0].dx[i]));
        }
    }
    assert!(q.dweight.iter().all(|dw| dw.is_nan()));
}

#[test]
fn buffers_may_be_longer_than_the_rows() {
    check_the_end(&Cpu::new(1).unwrap());
    check_the_end(cuda());
}

fn check_the_end<D: QkNormRope>(device: &D) {
    let tensor = |values: &[f32]| Tensor::from_slice(device, &[values.len()], values).unwrap();
    let values = |tensor: &Tensor<D>| tensor.to_vec::<f32>().unwrap();
    let (x, weight) = (tensor(&[3.0, 4.0, 9.0]), tensor(&[1.0, 2.0]));
    let [mut q_y, mut k_y] = [[7.0; 4]; 2].map(|y| tensor(&y));
    let [mut q_rstd, mut k_rstd] = [[7.0; 2]; 2].map(|rstd| tensor(&rstd));
    // A quarter turn.
    let (cos, sin) = (tensor(&[0.0, 5.0]), tensor(&[1.0, 5.0]));
    let args = Forward {
        q: HeadsForward {
            x: &x,
            weight: &weight,
            y: &mut q_y,
            rstd: &mut q_rstd,
            heads: 1,
        },
        k: HeadsForward {
            x: &x,
            weight: &weight,
            y: &mut k_y,
            rstd: &mut k_rstd,
            heads: 1,
        },
        plus_one: false,
        eps: 0.0,
        cos: &cos,
        sin: &sin,
        tokens: 1,
        head_dim: 2,
        rotary_dim: 2,
    };
    device
        .qk_norm_rope_forward(args.checked().unwrap())
        .unwrap();
    // rstd = (25/2)^-½.
    for (y, rstd) in [(&q_y, &q_rstd), (&k_y, &k_rstd)] {
        let y = values(y);
        assert!((y[0] + 2.262_742).abs() < 1e-6 && (y[1] - 0.848_528).abs() < 1e-6);
        assert_eq!(y[2..], [7.0, 7.0]);
        assert_eq!(values(rstd)[1], 7.0);
    }
    let args = Backward {
        q: HeadsBackward {
            dx: &mut q_y,
            x: &x,
            rstd: &q_rstd,
            weight: &weight,
            dweight: None,
            heads: 1,
        },
        k: HeadsBackward {
            dx: &mut k_y,
            x: &x,
            rstd: &k_rstd,
            weight: &weight,
            dweight: None,
            heads: 1,
        },
        plus_one: false,
        cos: &cos,
        sin: &sin,
        tokens: 1,
        head_dim: 2,
        rotary_dim: 2,
    };
    device
        .qk_norm_rope_backward(args.checked().unwrap())
        .unwrap();
    for dx in [q_y, k_y] {
        assert_eq!(values(&dx)[2..], [7.0, 7.0]);
    }
}

/// Operands of the forward pass, then of the backward pass, with their elements.
const OPERANDS: [(&str, usize); 20] = [
    ("q.x", 12),
    ("q.weight", 3),
    ("q.y", 12),
    ("q.rstd", 4),
    ("k.x", 6),
    ("k.weight", 3),
    ("k.y", 6),
    ("k.rstd", 2),
    ("cos", 2),
    ("sin", 2),
    ("q.dx", 12),
    ("q.x", 12),
    ("q.rstd", 4),
    ("q.dweight", 3),
    ("k.dx", 6),
    ("k.x", 6),
    ("k.rstd", 2),
    ("k.dweight", 3),
    ("cos", 2),
    ("sin", 2),
];

#[test]
fn arguments_that_do_not_fit_are_refused() {
    // Two tokens, two heads of queries and one of keys, three elements, two of which rotate.
    for (index, (name, len)) in OPERANDS.into_iter().enumerate() {
        // One element too few, or the right number of another type.
        for (dtype, len) in [(DType::F32, len - 1), (DType::U32, len), (DType::BF16, len)] {
            let error = check(Some((index, dtype, len)), 2).unwrap_err();
            assert!(!matches!(error, KernelError::Value { .. }));
            // Where the first operand has another type, the others do not fit it.
            let first = dtype == DType::BF16 && ["q.x", "q.dx"].contains(&name);
            assert!(
                first || error.to_string().contains(&format!("`{name}`")),
                "{name}: {error}"
            );
        }
    }
    check(None, 2).unwrap();
    check(None, 0).unwrap();
    for rotary_dim in [1, 4] {
        let error = check(None, rotary_dim).unwrap_err();
        assert!(matches!(
            error,
            KernelError::Value {
                operand: "rotary_dim",
                ..
            }
        ));
    }
}

/// The check of both passes, with one operand replaced.
fn check(wrong: Option<(usize, DType, usize)>, rotary_dim: usize) -> Result<(), KernelError> {
    let cpu = Cpu::new(1).unwrap();
    let mut index = 0;
    let mut tensors = OPERANDS.map(|(_, len)| {
        let (dtype, len) = match wrong {
            Some((wrong, dtype, len)) if wrong == index => (dtype, len),
            _ => (DType::F32, len),
        };
        index += 1;
        Tensor::zeros(&cpu, dtype, &[len]).unwrap()
    });
    let weight = Tensor::zeros(&cpu, DType::F32, &[3]).unwrap();
    let [
        q_x,
        q_weight,
        q_y,
        q_rstd,
        k_x,
        k_weight,
        k_y,
        k_rstd,
        cos,
        sin,
        backward @ ..,
    ] = &mut tensors;
    Forward {
        q: HeadsForward {
            x: q_x,
            weight: q_weight,
            y: q_y,
            rstd: q_rstd,
            heads: 2,
        },
        k: HeadsForward {
            x: k_x,
            weight: k_weight,
            y: k_y,
            rstd: k_rstd,
            heads: 1,
        },
        plus_one: false,
        eps: EPS,
        cos,
        sin,
        tokens: 2,
        head_dim: 3,
        rotary_dim,
    }
    .check()?;
    let [
        q_dx,
        q_x,
        q_rstd,
        q_dweight,
        k_dx,
        k_x,
        k_rstd,
        k_dweight,
        cos,
        sin,
    ] = backward;
    Backward {
        q: HeadsBackward {
            dx: q_dx,
            x: q_x,
            rstd: q_rstd,
            weight: &weight,
            dweight: Some(q_dweight),
            heads: 2,
        },
        k: HeadsBackward {
            dx: k_dx,
            x: k_x,
            rstd: k_rstd,
            weight: &weight,
            dweight: Some(k_dweight),
            heads: 1,
        },
        plus_one: false,
        cos,
        sin,
        tokens: 2,
        head_dim: 3,
        rotary_dim,
    }
    .check()
}
