//! AdamW against the f64 oracle and against PyTorch; order of the formula, threads, checks.

use super::*;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{
    Random, cuda,
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

struct Parameter<D: AdamW> {
    weight: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
}

impl<D: AdamW> Parameter<D> {
    fn new(device: &D, weight: &[f32]) -> Self {
        let zeros = || Tensor::zeros(device, DType::F32, &[weight.len()]).unwrap();
        Self {
            weight: Tensor::from_slice(device, &[weight.len()], weight).unwrap(),
            m: zeros(),
            v: zeros(),
        }
    }

    fn step(&mut self, gradient: &[f32], step: u64, gradient_scale: f64, options: Options) {
        let device = self.weight.device().clone();
        let gradient = Tensor::from_slice(&device, &[gradient.len()], gradient).unwrap();
        let args = update(self, &gradient, step, gradient_scale, options);
        device.adamw_update(args.checked().unwrap()).unwrap();
    }

    fn values(&self) -> [Vec<f32>; 3] {
        [&self.weight, &self.m, &self.v].map(|tensor| tensor.to_vec().unwrap())
    }

    fn bits(&self) -> [Vec<u32>; 3] {
        self.values()
            .map(|values| values.iter().map(|x| x.to_bits()).collect())
    }
}

fn update<'a, D: AdamW>(
    parameter: &'a mut Parameter<D>,
    gradient: &'a Tensor<D>,
    step: u64,
    gradient_scale: f64,
    options: Options,
) -> Update<'a, D> {
    Update {
        weight: parameter.weight.view_mut(),
        gradient: gradient.view(),
        m: parameter.m.view_mut(),
        v: parameter.v.view_mut(),
        hyperparameters: Hyperparameters {
            learning_rate: options.learning_rate,
            beta1: options.beta1,
            beta2: options.beta2,
            eps: options.eps,
            weight_decay: options.weight_decay,
            step,
            gradient_scale,
        },
    }
}

fn assert_within(name: &str, got: f32, exact: f64, tolerance: f64) {
    let close = (f64::from(got) - exact).abs() <= tolerance;
    assert!(close, "{name}: {got:e} {exact:e} ± {tolerance:e}");
}

#[test]
fn ten_steps_are_the_oracles_on_the_cpu() {
    compare_with_the_oracle(&Cpu::new(2).unwrap());
}

#[test]
fn ten_steps_are_the_oracles_on_cuda() {
    compare_with_the_oracle(cuda());
}

fn compare_with_the_oracle<D: AdamW>(device: &D) {
    for (length, scale, weight_decay) in [
        (0, 1.0, 0.1),
        (1, 0.5, 0.0),
        (33, 0.25, 0.1),
        (1024, 0.3, 0.1),
        (1027, 0.3, 0.1),
        (65_539, 1.0, 0.01),
    ] {
        let mut random = Random::new(length as u64);
        let options = Options {
            weight_decay,
            ..OPTIONS
        };
        let weight = random.normal(length, 1.0);
        let mut parameter = Parameter::new(device, &weight);
        let start = |&w: &f32| State {
            w: f64::from(w),
            ..State::default()
        };
        let mut exact: Vec<State> = weight.iter().map(start).collect();
        // Σ |terms| of m, since gradients of both signs cancel in it.
        let mut size = vec![0f64; length];
        for t in 1..=10u32 {
            let gradient = random.normal(length, 1e-2);
            parameter.step(&gradient, u64::from(t), scale, options);
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
        parameter.step(&gradient, t as u64, 1.0, OPTIONS);
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
    parameter.step(&[1.0, 0.0], 1, 1.0, options);
    let [w, ..] = parameter.values();
    assert_within("w", w[0], 2.0 * (1.0 - 1e-3) - 1e-2 / 2.0, 1e-6);
    assert_within("w", w[1], 2.0 * (1.0 - 1e-3), 1e-6);
}

#[test]
fn bits_depend_neither_on_threads_nor_on_the_place_and_nan_stays_in_its_element() {
    let weight = Random::new(1).normal(100_003, 1.0);
    let mut gradient = Random::new(2).normal(100_003, 1.0);
    gradient[70_000] = f32::NAN;
    fn run<D: AdamW>(device: &D, weight: &[f32], gradient: &[f32]) -> [Vec<u32>; 3] {
        let mut parameter = Parameter::new(device, weight);
        parameter.step(gradient, 1, 0.3, OPTIONS);
        parameter.step(gradient, 2, 0.3, OPTIONS);
        parameter.bits()
    }
    let expected = run(&Cpu::new(1).unwrap(), &weight, &gradient);
    for threads in [2, 3] {
        assert!(run(&Cpu::new(threads).unwrap(), &weight, &gradient) == expected);
    }
    let (weight, gradient) = (&weight[99_989..], &gradient[99_989..]);
    let part = run(&Cpu::new(1).unwrap(), weight, gradient);
    for (part, whole) in part.iter().zip(&expected) {
        assert!(part[..] == whole[99_989..]);
        let nan = (0..whole.len()).filter(|&i| f32::from_bits(whole[i]).is_nan());
        assert!(nan.eq([70_000]));
    }
}

#[test]
fn cuda_has_the_bits_of_the_cpu_in_both_widths() {
    let length = 2051;
    let mut weight = Random::new(1).normal(length, 1.0);
    let mut gradient = Random::new(2).normal(length, 1.0);
    let special = [
        0.0,
        -0.0,
        1e-30,
        -1e-42,
        1e30,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ];
    weight[1000..1008].copy_from_slice(&special);
    gradient[2000..2008].copy_from_slice(&special);
    fn run<D: AdamW>(device: &D, weight: &[f32], gradient: &[f32]) -> Vec<Option<u32>> {
        let mut parameter = Parameter::new(device, weight);
        for step in 1..=5 {
            parameter.step(gradient, step, 0.7, OPTIONS);
        }
        // One NaN is as good as another.
        let bits = |x: f32| (!x.is_nan()).then_some(x.to_bits());
        parameter.values().concat().into_iter().map(bits).collect()
    }
    let expected = run(&Cpu::new(1).unwrap(), &weight, &gradient);
    let wide = cuda().forcing(IndexWidth::Wide);
    for device in [cuda(), &wide] {
        assert!(run(device, &weight, &gradient) == expected);
    }
}

fn in_bf16<D: AdamW>(device: &D, weight: &[f32]) -> Parameter<D> {
    let zeros = || Tensor::zeros(device, DType::BF16, &[weight.len()]).unwrap();
    Parameter {
        m: zeros(),
        v: zeros(),
        ..Parameter::new(device, weight)
    }
}

fn floats<D: AdamW>(parameter: &Parameter<D>) -> [Vec<f32>; 3] {
    [&parameter.weight, &parameter.m, &parameter.v].map(|tensor| tensor.to_f32_vec().unwrap())
}

#[test]
fn moments_in_bf16_are_rounded_after_the_weight_has_moved() {
    check_bf16(&Cpu::new(2).unwrap());
    check_bf16(cuda());
}

/// Each step is compared with f64 from the stored values before it.
fn check_bf16<D: AdamW>(device: &D) {
    for length in [0, 1, 6, 1027, 65_539] {
        let mut random = Random::new(length as u64);
        let mut parameter = in_bf16(device, &random.normal(length, 1.0));
        for t in 1..=5u32 {
            let before = floats(&parameter);
            let gradient = random.normal(length, 1e-2);
            parameter.step(&gradient, t.into(), 1.0, OPTIONS);
            let [w, m, v] = floats(&parameter);
            for i in 0..length {
                let [w_old, m_old, v_old] = before.each_ref().map(|all| f64::from(all[i]));
                let state = State {
                    w: w_old,
                    m: m_old,
                    v: v_old,
                };
                let g = f64::from(gradient[i]);
                let exact = step(state, g, t as i32, OPTIONS);
                let size = m_old.abs() + g.abs();
                // At most one unit in the last of eight places, in either direction.
                let bf16 = f64::from(half::bf16::EPSILON);
                let m_error = bf16 * exact.m.abs() + 4.0 * UNIT * size;
                assert_within("m", m[i], exact.m, m_error);
                assert_within("v", v[i], exact.v, (bf16 + 5.0 * UNIT) * exact.v);
                let moved = (exact.w - w_old).abs();
                let w_error = 4.0 * UNIT * (1.0 + exact.w.abs() + 10.0 * (moved + 0.1));
                assert_within("w", w[i], exact.w, w_error);
            }
        }
    }
}

#[test]
fn moments_in_bf16_follow_gradients_that_they_could_not_follow_rounded_to_nearest() {
    // With β₂ = 0.999 each step changes v by a thousandth, a quarter of its last place.
    let cpu = Cpu::new(1).unwrap();
    let options = Options {
        beta2: 0.999,
        ..OPTIONS
    };
    let mut parameter = in_bf16(&cpu, &[0.0; 4096]);
    (1..=100).for_each(|t| parameter.step(&[1.0; 4096], t, 1.0, options));
    let [_, _, high] = floats(&parameter);
    (101..=800).for_each(|t| parameter.step(&[0.0; 4096], t, 1.0, options));
    let [_, _, low] = floats(&parameter);
    let mean = |all: &[f32]| all.iter().map(|&v| f64::from(v)).sum::<f64>() / 4096.0;
    let expected = 1.0 - 0.999f64.powi(100);
    assert!(
        (mean(&high) / expected - 1.0).abs() < 0.01,
        "{}",
        mean(&high)
    );
    let expected = expected * 0.999f64.powi(700);
    assert!((mean(&low) / expected - 1.0).abs() < 0.01, "{}", mean(&low));
}

#[test]
fn moments_in_bf16_have_the_same_bits_everywhere() {
    let weight = Random::new(1).normal(100_003, 1.0);
    let mut gradient = Random::new(2).normal(100_003, 1.0);
    gradient[1000..1006].copy_from_slice(&[0.0, -0.0, 1e-30, -1e-42, f32::MAX, f32::INFINITY]);
    fn run<D: AdamW>(device: &D, weight: &[f32], gradient: &[f32]) -> Vec<Option<u32>> {
        let mut parameter = in_bf16(device, weight);
        (1..=3).for_each(|step| parameter.step(gradient, step, 0.7, OPTIONS));
        let bits = |x: f32| (!x.is_nan()).then_some(x.to_bits());
        floats(&parameter).concat().into_iter().map(bits).collect()
    }
    let expected = run(&Cpu::new(1).unwrap(), &weight, &gradient);
    assert!(run(&Cpu::new(3).unwrap(), &weight, &gradient) == expected);
    let (weight, gradient) = (&weight[..2051], &gradient[..2051]);
    let expected = run(&Cpu::new(1).unwrap(), weight, gradient);
    let wide = cuda().forcing(IndexWidth::Wide);
    for device in [cuda(), &wide] {
        assert!(run(device, weight, gradient) == expected);
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
        parameter.step(&[0.5], t, 1.0, options);
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
        for broken in [(DType::F32, 4), (DType::F16, 5)] {
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
