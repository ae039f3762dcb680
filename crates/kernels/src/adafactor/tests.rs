//! Adafactor against f64 for matrices and vectors, with and without a first moment; threads, checks.

use super::*;
use tightrope_device::{Cpu, Tensor};
use tightrope_testkit::{Random, cuda};

const OPTIONS: Hyperparameters = Hyperparameters {
    learning_rate: 1e-2,
    beta1: 0.9,
    decay_rate: -0.8,
    eps: 1e-30,
    clip_threshold: 1.0,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 0.3,
};

struct Parameter<D: Adafactor> {
    shape: (usize, usize),
    weight: Tensor<D>,
    row: Tensor<D>,
    column: Tensor<D>,
    m: Option<Tensor<D>>,
    factored: bool,
}

/// Weight, second moments of rows and columns, first moment.
type Values = [Vec<f32>; 4];

impl<D: Adafactor> Parameter<D> {
    fn new(device: &D, shape: (usize, usize), factored: bool, m: bool, weight: &[f32]) -> Self {
        let zeros = |len| Tensor::zeros(device, DType::F32, &[len]).unwrap();
        Self {
            shape,
            weight: Tensor::from_slice(device, &[weight.len()], weight).unwrap(),
            row: zeros(shape.0),
            column: zeros(shape.1),
            m: m.then(|| zeros(weight.len())),
            factored,
        }
    }

    fn args<'a>(&'a mut self, gradient: &'a Tensor<D>, h: Hyperparameters) -> Update<'a, D> {
        Update {
            weight: self.weight.view_mut(),
            gradient: gradient.view(),
            v: match self.factored {
                true => SecondMoment::Factored {
                    rows: self.row.view_mut(),
                    columns: self.column.view_mut(),
                },
                false => SecondMoment::Whole(self.column.view_mut()),
            },
            m: self.m.as_mut().map(Tensor::view_mut),
            rows: self.shape.0,
            columns: self.shape.1,
            hyperparameters: h,
        }
    }

    fn step(&mut self, gradient: &[f32], h: Hyperparameters) {
        let device = self.weight.device().clone();
        let gradient = Tensor::from_slice(&device, &[gradient.len()], gradient).unwrap();
        let args = self.args(&gradient, h).checked().unwrap();
        device.adafactor_update(args).unwrap();
    }

    fn values(&self) -> Values {
        let m = self.m.as_ref().map(|m| m.to_vec().unwrap());
        [
            self.weight.to_vec().unwrap(),
            self.row.to_vec().unwrap(),
            self.column.to_vec().unwrap(),
            m.unwrap_or_default(),
        ]
    }
}

#[test]
fn steps_are_the_formulas_on_the_cpu() {
    compare_with_the_formula(&Cpu::new(2).unwrap());
}

#[test]
fn steps_are_the_formulas_on_cuda() {
    compare_with_the_formula(cuda());
}

/// One step in f64 from stored values.
fn exact(
    before: &Values,
    gradient: &[f32],
    (rows, columns): (usize, usize),
    factored: bool,
    h: Hyperparameters,
) -> [Vec<f64>; 4] {
    let [w, row, column, m] = before
        .each_ref()
        .map(|values| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let g: Vec<f64> = gradient
        .iter()
        .map(|&g| h.gradient_scale * f64::from(g))
        .collect();
    let blend = (h.step as f64).powf(h.decay_rate);
    let moved = |old: f64, mean: f64| (1.0 - blend) * old + blend * mean;
    let square = |i: usize, j: usize| g[i * columns + j].powi(2) + h.eps;
    let mean_of = |terms: Vec<f64>| terms.iter().sum::<f64>() / terms.len() as f64;
    let row: Vec<f64> = match factored {
        true => (0..rows)
            .map(|i| {
                moved(
                    row[i],
                    mean_of((0..columns).map(|j| square(i, j)).collect()),
                )
            })
            .collect(),
        false => row,
    };
    let column: Vec<f64> = (0..columns)
        .map(|j| {
            moved(
                column[j],
                mean_of((0..rows).map(|i| square(i, j)).collect()),
            )
        })
        .collect();
    let mean = mean_of(row.clone());
    let v = |i: usize, j: usize| match factored {
        true => row[i] / mean * column[j],
        false => column[j],
    };
    let u: Vec<f64> = (0..rows * columns)
        .map(|at| g[at] / v(at / columns, at % columns).sqrt())
        .collect();
    let rms = mean_of(u.iter().map(|u| u * u).collect()).sqrt();
    let factor = h.learning_rate / (rms / h.clip_threshold).max(1.0);
    let u: Vec<f64> = u.iter().map(|u| factor * u).collect();
    let m: Vec<f64> = m
        .iter()
        .zip(&u)
        .map(|(m, u)| h.beta1 * m + (1.0 - h.beta1) * u)
        .collect();
    let change = if m.is_empty() { &u } else { &m };
    let keep = 1.0 - h.learning_rate * h.weight_decay;
    let w = w.iter().zip(change).map(|(w, u)| keep * w - u).collect();
    [w, row, column, m]
}

/// Each step is compared with f64 from the stored values before it.
fn compare_with_the_formula<D: Adafactor>(device: &D) {
    for (shape, factored, m) in [
        ((1, 1), false, false),
        ((1, 7), false, true),
        ((1, 1500), false, false),
        ((1, 7), true, false),
        ((7, 1), true, true),
        ((65, 33), true, false),
        ((300, 70), true, true),
        ((16, 1030), true, true),
        ((1030, 16), true, false),
    ] {
        let length = shape.0 * shape.1;
        let mut random = Random::new(length as u64);
        let weight = random.normal(length, 1.0);
        let mut parameter = Parameter::new(device, shape, factored, m, &weight);
        for step in 1..=5 {
            let before = parameter.values();
            let mut gradient = random.normal(length, 1e-2);
            // Large steps are limited.
            if step == 4 {
                gradient.iter_mut().for_each(|g| *g *= 10.0);
            }
            let h = Hyperparameters { step, ..OPTIONS };
            parameter.step(&gradient, h);
            let exact = exact(&before, &gradient, shape, factored, h);
            let names = ["weight", "rows", "columns", "m"];
            for ((name, got), exact) in names.iter().zip(parameter.values()).zip(&exact) {
                for (&got, &exact) in got.iter().zip(exact) {
                    // Sums of up to 64 squares in f32, then a few roundings; a step of 0.01 moves
                    // a weight by at most 0.1.
                    let relative = 4e-6 * exact.abs();
                    let tolerance = match *name {
                        "weight" => 2e-7 * (1.0 + exact.abs()),
                        "m" => relative + 1e-8,
                        _ => relative,
                    };
                    let error = (f64::from(got) - exact).abs();
                    assert!(
                        error <= tolerance,
                        "{name} {shape:?}: {error:e} of {exact:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let shape = (700, 130);
    let length = shape.0 * shape.1;
    let (weight, gradient) = (
        Random::new(1).normal(length, 1.0),
        Random::new(2).normal(length, 1.0),
    );
    let run = |threads| {
        let cpu = Cpu::new(threads).unwrap();
        let mut parameter = Parameter::new(&cpu, shape, true, true, &weight);
        for step in 1..=3 {
            parameter.step(&gradient, Hyperparameters { step, ..OPTIONS });
        }
        parameter.values()
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3));
}

#[test]
fn a_gradient_of_zeros_moves_nothing_and_nan_is_not_hidden() {
    check_special(&Cpu::new(1).unwrap());
    check_special(cuda());
}

fn check_special<D: Adafactor>(device: &D) {
    for factored in [false, true] {
        let still = Hyperparameters {
            weight_decay: 0.0,
            ..OPTIONS
        };
        let mut parameter = Parameter::new(device, (1, 3), factored, false, &[1.0, 2.0, 3.0]);
        parameter.step(&[0.0; 3], still);
        assert_eq!(parameter.values()[0], [1.0, 2.0, 3.0]);
        parameter.step(&[1.0, f32::NAN, 0.0], Hyperparameters { step: 2, ..still });
        assert!(parameter.values()[0].iter().any(|w| w.is_nan()));
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let error = |parameter: &mut Parameter<Cpu>, gradient: usize, h| {
        let gradient = Tensor::zeros(&cpu, DType::F32, &[gradient]).unwrap();
        parameter
            .args(&gradient, h)
            .check()
            .unwrap_err()
            .to_string()
    };
    let new = |factored| Parameter::new(&cpu, (2, 3), factored, true, &[0.0; 6]);
    let refused = error(&mut new(true), 5, OPTIONS);
    assert!(refused.contains("`gradient`"), "{refused}");
    let refused = error(&mut new(false), 6, OPTIONS);
    assert!(refused.contains("factored"), "{refused}");
    let short = || Tensor::zeros(&cpu, DType::F32, &[1]).unwrap();
    for (operand, change) in [
        ("`v.rows`", (|p, t| p.row = t) as fn(&mut Parameter<Cpu>, _)),
        ("`v.columns`", |p, t| p.column = t),
        ("`m`", |p, t| p.m = Some(t)),
        ("`weight`", |p, t| p.weight = t),
    ] {
        let mut parameter = new(true);
        change(&mut parameter, short());
        let refused = error(&mut parameter, 6, OPTIONS);
        assert!(refused.contains(operand), "{refused}");
    }
    type Change = fn(&mut Hyperparameters);
    let wrong: [(&str, Change); 5] = [
        ("`step`", |h| h.step = 0),
        ("`beta1`", |h| h.beta1 = 1.0),
        ("`eps`", |h| h.eps = 0.0),
        ("`clip_threshold`", |h| h.clip_threshold = f64::NAN),
        ("`-decay_rate`", |h| h.decay_rate = 0.0),
    ];
    for (operand, change) in wrong {
        let mut h = OPTIONS;
        change(&mut h);
        let refused = error(&mut new(true), 6, h);
        assert!(refused.contains(operand), "{refused}");
    }
}
