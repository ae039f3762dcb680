//! Muon against f64: the momentum, and the iteration for every kind of shape.

use super::*;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{Random, cuda};

use crate::product::Product;

const OPTIONS: Hyperparameters = Hyperparameters {
    learning_rate: 1e-2,
    momentum: 0.95,
    nesterov: true,
    weight_decay: 0.1,
    gradient_scale: 0.3,
};
/// Half a unit in the last place: the error of one rounding.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;
const SHAPES: [(usize, usize); 9] = [
    (1, 1),
    (1, 7),
    (7, 1),
    (2, 3),
    (5, 5),
    (8, 33),
    (33, 8),
    (40, 64),
    (65, 17),
];

fn momentum<D: Muon>(
    device: &D,
    [weight, gradient, m]: [&[f32]; 3],
    hyperparameters: Hyperparameters,
) -> [Vec<f32>; 3] {
    let of = |values: &[f32]| Tensor::from_slice(device, &[values.len()], values).unwrap();
    let [mut weight, mut gradient, mut m] = [of(weight), of(gradient), of(m)];
    let args = Momentum {
        weight: weight.view_mut(),
        gradient: gradient.view_mut(),
        m: m.view_mut(),
        hyperparameters,
    };
    device.muon_momentum(args.checked().unwrap()).unwrap();
    [weight, gradient, m].map(|tensor| tensor.to_vec().unwrap())
}

fn check_the_momentum<D: Muon>(device: &D) {
    for (length, nesterov) in [(0, true), (1, false), (1027, true), (65_539, false)] {
        let mut random = Random::new(length as u64);
        let [w, g, m] = [1.0, 1e-2, 1e-2].map(|scale| random.normal(length, scale));
        let h = Hyperparameters {
            nesterov,
            ..OPTIONS
        };
        let [w_new, direction, m_new] = momentum(device, [&w, &g, &m], h);
        for i in 0..length {
            let [w, g, m] = [w[i], g[i], m[i]].map(f64::from);
            let g = h.gradient_scale * g;
            let m_exact = h.momentum * m + (1.0 - h.momentum) * g;
            let exact = match nesterov {
                true => h.momentum * m_exact + (1.0 - h.momentum) * g,
                false => m_exact,
            };
            let size = g.abs() + m.abs();
            for (got, exact, tolerance) in [
                (w_new[i], w * (1.0 - 1e-3), 3.0 * UNIT * w.abs()),
                (m_new[i], m_exact, 4.0 * UNIT * size),
                (direction[i], exact, 6.0 * UNIT * size),
            ] {
                let error = (f64::from(got) - exact).abs();
                assert!(error <= tolerance, "{error:e} {tolerance:e}");
            }
        }
    }
}

#[test]
fn the_momentum_is_the_formulas() {
    check_the_momentum(&Cpu::new(2).unwrap());
    check_the_momentum(cuda());
    check_the_momentum(&cuda().forcing(IndexWidth::Wide));
}

#[test]
fn the_momentum_has_the_same_bits_on_every_device_and_for_any_number_of_threads() {
    let mut random = Random::new(5);
    let [w, g, m] = [1.0, 1e-2, 1e-2].map(|scale| random.normal(70_003, scale));
    let all = [&w[..], &g, &m];
    let expected = momentum(&Cpu::new(1).unwrap(), all, OPTIONS);
    assert!(momentum(&Cpu::new(3).unwrap(), all, OPTIONS) == expected);
    assert!(momentum(cuda(), all, OPTIONS) == expected);
}

/// `X` after the published iteration in f64.
fn exact(direction: &[f32], (rows, columns): (usize, usize), steps: usize) -> Vec<f64> {
    let (a, b, c) = COEFFICIENTS;
    let norm: f64 = direction.iter().map(|&x| f64::from(x).powi(2)).sum();
    let norm = norm.sqrt().max(1e-7);
    let mut x: Vec<f64> = direction.iter().map(|&x| f64::from(x) / norm).collect();
    let at = |x: &[f64], i: usize, j: usize| x[i * columns + j];
    for _ in 0..steps {
        // (XXᵀ)X and (XXᵀ)²X, whichever side is shorter.
        let gram = |of: &[f64]| -> Vec<f64> {
            let mut inner = vec![0.0; columns * columns];
            for i in 0..columns {
                for j in 0..columns {
                    inner[i * columns + j] = (0..rows).map(|r| at(&x, r, i) * at(of, r, j)).sum();
                }
            }
            let product = |r: usize, j: usize| -> f64 {
                let terms = (0..columns).map(|i| at(&x, r, i) * inner[i * columns + j]);
                terms.sum()
            };
            let places = (0..rows).flat_map(|r| (0..columns).map(move |j| (r, j)));
            places.map(|(r, j)| product(r, j)).collect()
        };
        let cubed = gram(&x);
        let fifth = gram(&cubed);
        let all = x.iter().zip(&cubed).zip(&fifth);
        x = all.map(|((x, p), q)| a * x + b * p + c * q).collect();
    }
    x
}

fn added<D: Product + Muon>(
    device: &D,
    weight: &[f32],
    direction: &[f32],
    (rows, columns): (usize, usize),
    steps: usize,
    rate: f64,
) -> Vec<f32> {
    let of = |values: &[f32]| Tensor::from_slice(device, &[rows, columns], values).unwrap();
    let (mut sum, direction) = (of(weight), of(direction));
    let square: f64 = direction
        .to_vec::<f32>()
        .unwrap()
        .iter()
        .map(|&x| f64::from(x).powi(2))
        .sum();
    orthogonalize(Orthogonalize {
        weight: sum.view_mut(),
        direction: direction.view(),
        norm: square.sqrt(),
        rate,
        steps,
        rows,
        columns,
    })
    .unwrap();
    sum.to_vec().unwrap()
}

fn check_the_iteration<D: Product + Muon>(device: &D) {
    for shape in SHAPES {
        for steps in [1, 2, 5] {
            let mut random = Random::new((shape.0 * 100 + shape.1) as u64);
            let length = shape.0 * shape.1;
            let (weight, direction) = (random.normal(length, 1.0), random.normal(length, 1e-3));
            let rate = -0.125;
            let got = added(device, &weight, &direction, shape, steps, rate);
            let exact = exact(&direction, shape, steps);
            for i in 0..length {
                let exact = f64::from(weight[i]) + rate * exact[i];
                let error = (f64::from(got[i]) - exact).abs();
                // A step multiplies errors by up to 3.4; five of them by up to 500.
                let tolerance = UNIT * (2.0 + 0.125 * 2000.0);
                assert!(error <= tolerance, "{shape:?} {steps}: {error:e}");
            }
        }
    }
}

#[test]
fn the_iteration_is_the_published_one() {
    let cpu = Cpu::new(2).unwrap();
    check_the_iteration(&cpu);
    check_the_iteration(&cpu.without_amx());
    check_the_iteration(cuda());
}

#[test]
fn the_iteration_has_the_same_bits_for_any_number_of_threads_and_zero_stays_zero() {
    let shape = (96, 200);
    let length = shape.0 * shape.1;
    let (weight, direction) = (vec![0.0; length], Random::new(7).normal(length, 1.0));
    let run = |threads: usize| {
        let cpu = Cpu::new(threads).unwrap();
        added(&cpu, &weight, &direction, shape, 5, 1.0)
    };
    let one = run(1);
    assert!(one == run(3));
    // Its singular values come near 1.
    let square: f64 = one.iter().map(|&x| f64::from(x).powi(2)).sum();
    let mean = square / shape.0 as f64;
    assert!((0.4..1.5).contains(&mean), "{mean}");
    for device_bits in [
        added(&Cpu::new(1).unwrap(), &weight, &weight, shape, 5, 1.0),
        added(cuda(), &weight, &weight, shape, 5, 1.0),
    ] {
        assert!(device_bits.iter().all(|&x| x == 0.0));
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |len: usize| Tensor::zeros(&cpu, DType::F32, &[len]).unwrap();
    let refused = |weight: usize, direction: usize, steps| {
        let result = orthogonalize(Orthogonalize {
            weight: zeros(weight).view_mut(),
            direction: zeros(direction).view(),
            norm: 1.0,
            rate: 1.0,
            steps,
            rows: 2,
            columns: 3,
        });
        result.unwrap_err().to_string()
    };
    assert!(refused(5, 6, 5).contains("`weight`"));
    assert!(refused(6, 5, 5).contains("`direction`"));
    assert!(refused(6, 6, 0).contains("`steps`"));
    let mut matrix = zeros(8);
    let args = AddToDiagonal {
        matrix: matrix.view_mut(),
        rows: 3,
        number: 1.0,
    };
    assert!(args.check().unwrap_err().to_string().contains("`matrix`"));
    let wrong = |m: usize, momentum| {
        let error = Momentum {
            weight: zeros(5).view_mut(),
            gradient: zeros(5).view_mut(),
            m: zeros(m).view_mut(),
            hyperparameters: Hyperparameters {
                momentum,
                ..OPTIONS
            },
        }
        .check();
        error.unwrap_err().to_string()
    };
    assert!(wrong(4, 0.9).contains("`m`"));
    assert!(wrong(5, 1.0).contains("`momentum`"));
}
