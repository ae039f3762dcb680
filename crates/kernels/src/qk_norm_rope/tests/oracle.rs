//! Compares with the f64 oracle, with finite differences, and with the two operations in sequence.

use super::*;
use crate::rms_norm::{self, RmsNorm};
use tightrope_device::{Cpu, Tensor};
use tightrope_testkit::{
    cuda, cuda_with_small_limits, finite_difference, oracle, rounding, unit, widen,
};

impl Case {
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

    /// Sum of a rotation's terms if all have one sign.
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
    // Error of rstd, as in RMSNorm alone.
    let error = (dim as f64 / 32.0 + 12.0) * u;
    // Error of a rotation: tables rounded once, two products and a sum.
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
    for dtype in FLOATS {
        compare_with_the_oracle(&Cpu::new(2).unwrap(), dtype);
    }
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    for dtype in FLOATS {
        compare_with_the_oracle(cuda(), dtype);
        compare_with_the_oracle(cuda_with_small_limits(), dtype);
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
        x: x.view(),
        residual: None,
        weight: weight.view(),
        plus_one: case.plus_one,
        eps: EPS,
        y: y.view_mut(),
        rstd: rstd.view_mut(),
        rows,
        dim,
    };
    cpu.rms_norm_forward(args.checked().unwrap()).unwrap();
    rotate(y.as_mut_slice().unwrap(), 1.0);
    let (mut dy, mut dx, mut dweight) = (tensor(&side.dy), tensor(&side.x), tensor(&side.before));
    rotate(dy.as_mut_slice().unwrap(), -1.0);
    let args = rms_norm::Backward {
        dy: dy.view(),
        x: x.view(),
        rstd: rstd.view(),
        weight: weight.view(),
        plus_one: case.plus_one,
        dx: dx.view_mut(),
        accumulate: false,
        dweight: Some(dweight.view_mut()),
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
