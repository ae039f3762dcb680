//! AdamW against the f64 oracle and against PyTorch; order of the formula, threads, checks.

use super::*;
use tightrope_device::Cpu;
use tightrope_testkit::{
    Random,
    oracle::adamw::{Options, State, step},
};

const OPTIONS: Options = Options {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
};
/// Half a unit in the last place: the error of one rounding.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

struct Parameter {
    weight: Tensor<Cpu>,
    m: Tensor<Cpu>,
    v: Tensor<Cpu>,
}

impl Parameter {
    fn new(cpu: &Cpu, weight: &[f32]) -> Self {
        let zeros = || Tensor::zeros(cpu, DType::F32, &[weight.len()]).unwrap();
        Self {
            weight: Tensor::from_slice(cpu, &[weight.len()], weight).unwrap(),
            m: zeros(),
            v: zeros(),
        }
    }

    fn step(
        &mut self,
        cpu: &Cpu,
        gradient: &[f32],
        step: u64,
        gradient_scale: f64,
        options: Options,
    ) {
        let gradient = Tensor::from_slice(cpu, &[gradient.len()], gradient).unwrap();
        let args = update(self, &gradient, step, gradient_scale, options);
        cpu.adamw_update(args.checked().unwrap()).unwrap();
    }

    fn values(&self) -> [Vec<f32>; 3] {
        [&self.weight, &self.m, &self.v].map(|tensor| tensor.to_vec().unwrap())
    }
}

fn update<'a>(
    parameter: &'a mut Parameter,
    gradient: &'a Tensor<Cpu>,
    step: u64,
    gradient_scale: f64,
    options: Options,
) -> Update<'a, Cpu> {
    Update {
        weight: &mut parameter.weight,
        gradient,
        m: &mut parameter.m,
        v: &mut parameter.v,
        learning_rate: options.learning_rate,
        beta1: options.beta1,
        beta2: options.beta2,
        eps: options.eps,
        weight_decay: options.weight_decay,
        step,
        gradient_scale,
    }
}

fn assert_within(name: &str, got: f32, exact: f64, tolerance: f64) {
    let close = (f64::from(got) - exact).abs() <= tolerance;
    assert!(close, "{name}: {got:e} {exact:e} ± {tolerance:e}");
}

#[test]
fn ten_steps_are_the_oracles_at_every_length() {
    let cpu = Cpu::new(2).unwrap();
    for (length, scale, weight_decay) in [
        (0, 1.0, 0.1),
        (1, 0.5, 0.0),
        (33, 0.25, 0.1),
        (65_539, 1.0, 0.01),
    ] {
        let mut random = Random::new(length as u64);
        let options = Options {
            weight_decay,
            ..OPTIONS
        };
        let weight = random.normal(length, 1.0);
        let mut parameter = Parameter::new(&cpu, &weight);
        let start = |&w: &f32| State {
            w: f64::from(w),
            ..State::default()
        };
        let mut exact: Vec<State> = weight.iter().map(start).collect();
        // Σ |terms| of m, since gradients of both signs cancel in it.
        let mut size = vec![0f64; length];
        for t in 1..=10u32 {
            let gradient = random.normal(length, 1e-2);
            parameter.step(&cpu, &gradient, u64::from(t), scale, options);
            for ((exact, size), &g) in exact.iter_mut().zip(&mut size).zip(&gradient) {
                let g = scale * f64::from(g);
                *exact = step(*exact, g, t as i32, options);
                *size = 0.9 * *size + 0.1 * g.abs();
            }
            let [w, m, v] = parameter.values();
            let steps = f64::from(t);
            for i in 0..length {
                // Each step rounds m and v four times and the weight three times; an error of m
                // moves the weight by learning_rate · error / √v̂ with √v̂ ≥ size / 3 over ten steps.
                assert_within("m", m[i], exact[i].m, 4.0 * steps * UNIT * size[i]);
                assert_within("v", v[i], exact[i].v, 5.0 * steps * UNIT * exact[i].v);
                let tolerance =
                    steps * UNIT * (3.0 * (1.0 + exact[i].w.abs()) + 60.0 * options.learning_rate);
                assert_within("w", w[i], exact[i].w, tolerance);
            }
        }
    }
}

#[test]
fn ten_steps_are_pytorchs() {
    // torch 2.15.0: AdamW(lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1) on these weights
    // and gradients; weights, exp_avg and exp_avg_sq after ten steps.
    let weight = [0.5, -1.25, 3.0, 0.0, 1e-3, -2.0, 100.0];
    let scale = [1.0, 1e-3, 10.0, 1.0, 1e-6, 0.0, 1.0f32];
    let expected = [
        [
            0.5457795262336731,
            -1.2009111642837524,
            2.9075098037719727,
            -0.06471475213766098,
            -0.08806459605693817,
            -1.9800900220870972,
            98.90890502929688,
        ],
        [
            -0.17300237715244293,
            -0.00021707729320041835,
            1.5265841484069824,
            0.1085834950208664,
            4.78319179819664e-07,
            0.0,
            0.8039799928665161,
        ],
        [
            0.08665002882480621,
            1.1116239306829812e-07,
            8.357147216796875,
            0.08959949761629105,
            2.8112440760702517e-13,
            0.0,
            0.6793088912963867,
        ],
    ];
    let cpu = Cpu::new(1).unwrap();
    let mut parameter = Parameter::new(&cpu, &weight);
    for t in 1..=10 {
        let time = f64::from(t);
        let gradient: Vec<f32> = (0..7)
            .map(|i| {
                let odd = f64::from(i % 2);
                let g = (f64::from(i) - 3.0) * 0.25 + (time % 3.0) * 0.5 - 0.5 * odd * time / 10.0;
                g as f32 * scale[i as usize]
            })
            .collect();
        parameter.step(&cpu, &gradient, t as u64, 1.0, OPTIONS);
    }
    for (got, expected) in parameter.values().iter().zip(&expected) {
        for (&got, &expected) in got.iter().zip(expected) {
            // Both round: a few units after ten steps.
            assert_within(
                "torch",
                got,
                expected,
                20.0 * UNIT * f64::from(expected as f32).abs() + 1e-8,
            );
        }
    }
}

#[test]
fn eps_stands_outside_the_root_and_decay_apart_from_the_gradient() {
    let cpu = Cpu::new(1).unwrap();
    // First step: m̂ = g and √v̂ = |g|, so w = w·(1 − ηλ) − η·g / (|g| + eps).
    let options = Options {
        eps: 1.0,
        ..OPTIONS
    };
    let mut parameter = Parameter::new(&cpu, &[2.0, 2.0]);
    parameter.step(&cpu, &[1.0, 0.0], 1, 1.0, options);
    let [w, ..] = parameter.values();
    assert_within("w", w[0], 2.0 * (1.0 - 1e-3) - 1e-2 / 2.0, 1e-6);
    assert_within("w", w[1], 2.0 * (1.0 - 1e-3), 1e-6);
}

#[test]
fn bits_depend_neither_on_threads_nor_on_the_place_and_nan_stays_in_its_element() {
    let weight = Random::new(1).normal(100_003, 1.0);
    let mut gradient = Random::new(2).normal(100_003, 1.0);
    gradient[70_000] = f32::NAN;
    let run = |threads, from: usize| {
        let cpu = Cpu::new(threads).unwrap();
        let mut parameter = Parameter::new(&cpu, &weight[from..]);
        parameter.step(&cpu, &gradient[from..], 1, 0.3, OPTIONS);
        parameter.step(&cpu, &gradient[from..], 2, 0.3, OPTIONS);
        parameter
            .values()
            .map(|values| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    let expected = run(1, 0);
    for threads in [2, 3] {
        assert!(run(threads, 0) == expected);
    }
    for (part, whole) in run(1, 99_989).iter().zip(&expected) {
        assert!(part[..] == whole[99_989..]);
        let nan = (0..whole.len()).filter(|&i| f32::from_bits(whole[i]).is_nan());
        assert!(nan.eq([70_000]));
    }
}

#[test]
fn late_steps_keep_their_bias_correction() {
    // β₂ = 0.999 at step 100: 1 − β₂ᵗ = 0.0952 in f64; an f32 power would be off in the fifth digit.
    let cpu = Cpu::new(1).unwrap();
    let options = Options {
        beta2: 0.999_999,
        weight_decay: 0.0,
        ..OPTIONS
    };
    let mut parameter = Parameter::new(&cpu, &[1.0]);
    let mut exact = State {
        w: 1.0,
        ..State::default()
    };
    for t in 1..=100 {
        parameter.step(&cpu, &[0.5], t, 1.0, options);
        exact = step(exact, 0.5, t as i32, options);
    }
    let [w, ..] = parameter.values();
    // The sum of a hundred steps of 0.01, each with a few roundings of its own and one of v.
    assert_within("w", w[0], exact.w, 100.0 * (UNIT + 0.01 * 60.0 * UNIT));
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    for wrong in ["gradient", "m", "v"] {
        for broken in [(DType::F32, 4), (DType::BF16, 5)] {
            let make = |name| match name == wrong {
                true => zeros(broken.0, broken.1),
                false => zeros(DType::F32, 5),
            };
            let mut parameter = Parameter {
                weight: make("weight"),
                m: make("m"),
                v: make("v"),
            };
            let gradient = make("gradient");
            let error = update(&mut parameter, &gradient, 1, 1.0, OPTIONS)
                .check()
                .unwrap_err();
            assert!(error.to_string().contains(&format!("`{wrong}`")), "{error}");
        }
    }
    let gradient = zeros(DType::F32, 5);
    let mut parameter = Parameter {
        weight: zeros(DType::F16, 5),
        m: zeros(DType::F32, 5),
        v: zeros(DType::F32, 5),
    };
    let error = update(&mut parameter, &gradient, 1, 1.0, OPTIONS)
        .check()
        .unwrap_err();
    assert!(matches!(
        error,
        KernelError::DType {
            operand: "weight",
            ..
        }
    ));
    let mut parameter = Parameter::new(&cpu, &[0.0; 5]);
    let mut refused =
        |step, options| match update(&mut parameter, &gradient, step, 1.0, options).check() {
            Err(KernelError::Value { operand, .. }) => operand,
            other => panic!("{other:?}"),
        };
    assert_eq!(refused(0, OPTIONS), "step");
    for beta in [-0.1, 1.0, f64::NAN] {
        assert_eq!(
            refused(
                1,
                Options {
                    beta1: beta,
                    ..OPTIONS
                }
            ),
            "beta1"
        );
        assert_eq!(
            refused(
                1,
                Options {
                    beta2: beta,
                    ..OPTIONS
                }
            ),
            "beta2"
        );
    }
    for eps in [-1e-8, f64::NAN] {
        assert_eq!(refused(1, Options { eps, ..OPTIONS }), "eps");
    }
}
