//! AdamW with 8-bit moments: each step against the f64 recurrence on the same codes, devices
//! against each other, and a problem that it must solve like AdamW in f32.

use super::*;
use crate::{
    adamw::{self, AdamW},
    dynamic_map::DynamicMap,
};
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{
    Random, cuda,
    oracle::adamw::{Options, State, step},
    unit,
};

const OPTIONS: Options = Options {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
};
/// Blocks have 256 elements, a block of threads eight of them.
const LENGTHS: [usize; 9] = [0, 1, 31, 255, 256, 257, 2047, 2049, 5000];

struct Parameter<D: AdamW8bit> {
    weight: Tensor<D>,
    m: (Tensor<D>, Tensor<D>),
    v: (Tensor<D>, Tensor<D>),
}

/// Values of a parameter.
#[derive(Clone, Debug, PartialEq)]
struct Values {
    weight: Vec<f32>,
    m: (Vec<u8>, Vec<f32>),
    v: (Vec<u8>, Vec<f32>),
}

impl Values {
    /// State of element `i`.
    fn state(&self, i: usize) -> State {
        let moment = |(codes, absmax): &(Vec<u8>, Vec<f32>), map: &DynamicMap| {
            f64::from(map.value(codes[i])) * f64::from(absmax[i / BLOCK])
        };
        State {
            w: self.weight[i].into(),
            m: moment(&self.m, DynamicMap::signed()),
            v: moment(&self.v, DynamicMap::unsigned()),
        }
    }

    /// Bits with one NaN for all NaNs.
    fn bits(&self) -> (Vec<Option<u32>>, Vec<u8>) {
        let floats = [&self.weight, &self.m.1, &self.v.1].map(|values| values.iter());
        let bits = |x: &f32| (!x.is_nan()).then_some(x.to_bits());
        let codes = [&self.m.0[..], &self.v.0].concat();
        (floats.into_iter().flatten().map(bits).collect(), codes)
    }
}

impl<D: AdamW8bit> Parameter<D> {
    fn new(device: &D, weight: &[f32]) -> Self {
        let elements = weight.len();
        let zeros = || {
            let zeros = |dtype, len| Tensor::zeros(device, dtype, &[len]).unwrap();
            (
                zeros(DType::U8, elements),
                zeros(DType::F32, elements.div_ceil(BLOCK)),
            )
        };
        Self {
            weight: Tensor::from_slice(device, &[elements], weight).unwrap(),
            m: zeros(),
            v: zeros(),
        }
    }

    fn step(&mut self, gradient: &[f32], step: u64, gradient_scale: f64, options: Options) {
        let device = self.weight.device().clone();
        let gradient = Tensor::from_slice(&device, &[gradient.len()], gradient).unwrap();
        let args = self.update(&gradient, hyperparameters(step, gradient_scale, options));
        device.adamw_8bit_update(args.checked().unwrap()).unwrap();
    }

    fn update<'a>(
        &'a mut self,
        gradient: &'a Tensor<D>,
        hyperparameters: Hyperparameters,
    ) -> Update<'a, D> {
        let moment = |(codes, absmax): &'a mut (Tensor<D>, Tensor<D>)| Moment {
            codes: codes.view_mut(),
            absmax: absmax.view_mut(),
        };
        Update {
            weight: self.weight.view_mut(),
            gradient: gradient.view(),
            m: moment(&mut self.m),
            v: moment(&mut self.v),
            hyperparameters,
        }
    }

    fn values(&self) -> Values {
        let moment = |(codes, absmax): &(Tensor<D>, Tensor<D>)| {
            (codes.to_vec().unwrap(), absmax.to_vec().unwrap())
        };
        Values {
            weight: self.weight.to_vec().unwrap(),
            m: moment(&self.m),
            v: moment(&self.v),
        }
    }
}

fn hyperparameters(step: u64, gradient_scale: f64, options: Options) -> Hyperparameters {
    Hyperparameters {
        learning_rate: options.learning_rate,
        beta1: options.beta1,
        beta2: options.beta2,
        eps: options.eps,
        weight_decay: options.weight_decay,
        step,
        gradient_scale,
    }
}

/// Gradients of many sizes, so that every decade of the maps is used; some of them are 0.
fn gradients(random: &mut Random, length: usize) -> Vec<f32> {
    let normal = random.normal(length, 1e-2);
    let size = |_: &f32| 10f32.powi(-(random.below(7) as i32)) * random.below(5).min(1) as f32;
    let sizes: Vec<f32> = normal.iter().map(size).collect();
    normal.iter().zip(sizes).map(|(g, size)| g * size).collect()
}

fn assert_within(name: &str, got: f64, exact: f64, tolerance: f64) {
    let close = (got - exact).abs() <= tolerance;
    assert!(close, "{name}: {got:e} {exact:e} ± {tolerance:e}");
}

/// Checks that the codes of a moment and their scales are the right ones for the exact moment
/// `of(i)`, if each element may be off by `error(i)`.
fn assert_stored(
    (codes, absmax): &(Vec<u8>, Vec<f32>),
    map: &DynamicMap,
    of: &dyn Fn(usize) -> f64,
    error: &dyn Fn(usize) -> f64,
    least: &dyn Fn(usize) -> u8,
) {
    for (block, &absmax) in absmax.iter().enumerate() {
        let elements = block * BLOCK..codes.len().min((block + 1) * BLOCK);
        let absmax = f64::from(absmax);
        let largest = elements.clone().map(|i| of(i).abs()).fold(0.0, f64::max);
        let off = elements.clone().map(error).fold(0.0, f64::max);
        assert_within("absmax", absmax, largest, off);
        for i in elements {
            let distance = |code: u8| (f64::from(map.value(code)) * absmax - of(i)).abs();
            let nearest = (least(i)..=255).map(distance).fold(f64::MAX, f64::min);
            // The division and the midpoint are rounded too, relative to the number.
            let off = 2.0 * error(i) + 4.0 * unit(DType::F32) * of(i).abs();
            assert_within("distance", distance(codes[i]), nearest, off);
        }
    }
}

fn compare_with_the_recurrence<D: AdamW8bit>(device: &D) {
    let u = unit(DType::F32);
    for (length, scale) in LENGTHS.iter().flat_map(|&l| [(l, 1.0), (l, 0.3)]) {
        let mut random = Random::new(length as u64);
        let weight = random.normal(length, 1.0);
        let mut parameter = Parameter::new(device, &weight);
        for t in 1..=4u32 {
            let gradient = gradients(&mut random, length);
            let before = parameter.values();
            parameter.step(&gradient, t.into(), scale, OPTIONS);
            let after = parameter.values();
            // The product of code and scale is rounded once more than in f32.
            let g = |i: usize| scale * f64::from(gradient[i]);
            let exact = |i: usize| step(before.state(i), g(i), t as i32, OPTIONS);
            // Terms that may cancel; subnormal numbers have no relative error.
            let tiny = f64::from(f32::MIN_POSITIVE) * u;
            let m_error = |i: usize| 5.0 * u * (before.state(i).m.abs() + g(i).abs()) + 4.0 * tiny;
            let v_error = |i: usize| 6.0 * u * exact(i).v + 4.0 * tiny;
            for (i, &got) in after.weight.iter().enumerate() {
                let root = (exact(i).v / (1.0 - OPTIONS.beta2.powi(t as i32))).sqrt();
                let m_hat = 1.0 - OPTIONS.beta1.powi(t as i32);
                // Errors of m and v on the way through m̂ / (√v̂ + eps), then three roundings.
                let change = m_error(i) / m_hat / (root + OPTIONS.eps)
                    + 10.0 * u * (exact(i).m / m_hat).abs() / (root + OPTIONS.eps);
                let off = OPTIONS.learning_rate * change + 3.0 * u * (1.0 + exact(i).w.abs());
                assert_within("weight", got.into(), exact(i).w, off);
            }
            let anything = |_: usize| 0;
            let (m, v) = (|i: usize| exact(i).m, |i: usize| exact(i).v);
            assert_stored(&after.m, DynamicMap::signed(), &m, &m_error, &anything);
            let positive = |i: usize| u8::from(exact(i).v > 0.0);
            assert_stored(&after.v, DynamicMap::unsigned(), &v, &v_error, &positive);
        }
    }
}

#[test]
fn every_step_is_the_recurrences_on_the_cpu() {
    compare_with_the_recurrence(&Cpu::new(2).unwrap());
}

#[test]
fn every_step_is_the_recurrences_on_cuda() {
    compare_with_the_recurrence(cuda());
}

#[test]
fn bits_depend_neither_on_the_device_nor_on_threads_nor_on_the_width() {
    fn run<D: AdamW8bit>(device: &D, length: usize) -> (Vec<Option<u32>>, Vec<u8>) {
        let mut random = Random::new(length as u64 + 1);
        let mut parameter = Parameter::new(device, &random.normal(length, 1.0));
        for step in 1..=5 {
            let mut gradient = gradients(&mut random, length);
            let special = [0.0, -0.0, 1e-30, -1e-42, 1e15, f32::INFINITY, f32::NAN];
            // Each value in a separate block.
            for (i, x) in special.into_iter().enumerate() {
                if let Some(gradient) = gradient.get_mut(3 + i * 300) {
                    *gradient = x;
                }
            }
            parameter.step(&gradient, step, 0.7, OPTIONS);
        }
        parameter.values().bits()
    }
    let wide = cuda().forcing(IndexWidth::Wide);
    for length in LENGTHS {
        let expected = run(&Cpu::new(1).unwrap(), length);
        assert!(run(&Cpu::new(3).unwrap(), length) == expected);
        assert!(run(cuda(), length) == expected);
        assert!(run(&wide, length) == expected);
    }
}

/// Without a past, the moments are the gradient and its square, and a block with 1 in it is not
/// scaled.
#[test]
fn next_to_every_midpoint_of_the_maps_the_right_code_is_found() {
    let options = Options {
        beta1: 0.0,
        beta2: 0.0,
        ..OPTIONS
    };
    let midpoints = |map: &DynamicMap| {
        let pairs = map.values().windows(2);
        pairs
            .map(|pair| (pair[0] + pair[1]) * 0.5)
            .collect::<Vec<_>>()
    };
    let roots = midpoints(DynamicMap::unsigned()).into_iter().map(f32::sqrt);
    let near = midpoints(DynamicMap::signed()).into_iter().chain(roots);
    let around =
        |x: f32| (-3..=3).map(move |ulps| f32::from_bits(x.to_bits().wrapping_add_signed(ulps)));
    let small = [
        0.0,
        -0.0,
        -1.0,
        f32::MIN_POSITIVE,
        -1e-40,
        1e-20,
        -1e-7,
        1.2e-7,
        3e-4,
    ];
    let numbers: Vec<f32> = near.flat_map(around).chain(small).collect();
    let blocks = numbers.chunks(BLOCK - 1);
    let gradient: Vec<f32> = blocks.flat_map(|block| [&[1.0], block].concat()).collect();

    fn run<D: AdamW8bit>(device: &D, gradient: &[f32], options: Options) -> Values {
        let mut parameter = Parameter::new(device, &vec![1.0; gradient.len()]);
        parameter.step(gradient, 1, 1.0, options);
        parameter.values()
    }
    let on_cpu = run(&Cpu::new(1).unwrap(), &gradient, options);
    assert!(run(cuda(), &gradient, options) == on_cpu);
    for codes in [&on_cpu.m.0, &on_cpu.v.0] {
        let found: std::collections::BTreeSet<u8> = codes.iter().copied().collect();
        assert_eq!(found.len(), 256);
    }
}

#[test]
fn large_parameters_have_the_same_bits_for_any_number_of_threads() {
    let run = |threads| {
        let mut random = Random::new(4);
        let mut parameter =
            Parameter::new(&Cpu::new(threads).unwrap(), &random.normal(100_003, 1.0));
        for step in 1..=2 {
            parameter.step(&gradients(&mut random, 100_003), step, 1.0, OPTIONS);
        }
        parameter.values().bits()
    };
    assert!(run(1) == run(3));
}

#[test]
fn what_is_not_finite_stays_in_its_block() {
    check_what_is_not_finite(&Cpu::new(1).unwrap());
    check_what_is_not_finite(cuda());
}

fn check_what_is_not_finite<D: AdamW8bit>(device: &D) {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut random = Random::new(6);
        let weight = random.normal(700, 1.0);
        let first = random.normal(700, 1.0);
        let run = |gradient: &[f32]| {
            let mut parameter = Parameter::new(device, &weight);
            parameter.step(gradient, 1, 1.0, OPTIONS);
            let once = parameter.values();
            parameter.step(&first, 2, 1.0, OPTIONS);
            [once, parameter.values()]
        };
        let clean = run(&first);
        let mut gradient = first.clone();
        gradient[300] = bad;
        let broken = run(&gradient);
        let at = |values: &Values, i: usize| {
            let state = values.state(i);
            [state.w, state.m, state.v]
        };
        for i in 0..700 {
            if i / BLOCK != 1 {
                assert_eq!(at(&broken[1], i), at(&clean[1], i));
            } else {
                // Other weights see it only in the next step.
                let weights = [broken[0].weight[i], broken[1].weight[i]];
                assert_eq!(weights.map(f32::is_nan), [i == 300, true]);
                assert!(at(&broken[0], i)[1..].iter().all(|x| !x.is_finite()));
            }
        }
    }
}

#[test]
fn a_small_second_moment_does_not_become_zero() {
    check_small_second_moments(&Cpu::new(1).unwrap());
    check_small_second_moments(cuda());
}

fn check_small_second_moments<D: AdamW8bit>(device: &D) {
    // 1e-4 of the largest gradient is 1e-8 of the largest square, below the first code; after that
    // there is no gradient.
    let mut parameter = Parameter::new(device, &[0.0; 3]);
    parameter.step(&[1.0, 1e-4, 0.0], 1, 1.0, OPTIONS);
    assert_eq!(parameter.values().v.0, [255, 1, 0]);
    for step in 2..10 {
        let before = parameter.values().weight;
        parameter.step(&[0.0; 3], step, 1.0, OPTIONS);
        for (before, after) in before.iter().zip(parameter.values().weight) {
            assert!((before - after).abs() < 2.0 * OPTIONS.learning_rate as f32);
        }
    }
}

#[test]
fn a_quadratic_problem_is_solved_as_in_f32() {
    // Minimise Σ a (w − t)² / 2 with curvatures from 0.01 to 1, from zero.
    let length = LEAST_ELEMENTS;
    let cpu = Cpu::new(1).unwrap();
    let mut random = Random::new(11);
    let target = random.normal(length, 1.0);
    let curvature: Vec<f32> = (0..length)
        .map(|_| 10f32.powf(-2.0 * random.uniform() as f32))
        .collect();
    let losses = |weight: &[f32]| -> (Vec<f32>, f64) {
        let difference: Vec<f32> = weight.iter().zip(&target).map(|(w, t)| w - t).collect();
        let gradient = curvature.iter().zip(&difference).map(|(a, d)| a * d);
        let loss = curvature.iter().zip(&difference).map(|(a, d)| a * d * d);
        (
            gradient.collect(),
            loss.map(f64::from).sum::<f64>() / length as f64,
        )
    };
    let options = |t: u64| Options {
        learning_rate: 0.05 * (1.0 - t as f64 / 400.0),
        beta2: 0.999,
        weight_decay: 0.0,
        ..OPTIONS
    };
    let zeros = vec![0.0; length];
    let start = losses(&zeros).1;

    let mut eight = Parameter::new(&cpu, &zeros);
    for t in 1..400 {
        let (gradient, _) = losses(eight.weight.as_slice().unwrap());
        eight.step(&gradient, t, 1.0, options(t));
    }
    let of_eight = losses(eight.weight.as_slice().unwrap()).1;

    let f32s = || Tensor::zeros(&cpu, DType::F32, &[length]).unwrap();
    let [mut weight, mut m, mut v] = [f32s(), f32s(), f32s()];
    for t in 1..400 {
        let (gradient, _) = losses(weight.as_slice().unwrap());
        let gradient = Tensor::from_slice(&cpu, &[length], &gradient).unwrap();
        let args = adamw::Update {
            weight: weight.view_mut(),
            gradient: gradient.view(),
            m: m.view_mut(),
            v: v.view_mut(),
            hyperparameters: hyperparameters(t, 1.0, options(t)),
        };
        cpu.adamw_update(args.checked().unwrap()).unwrap();
    }
    let of_f32 = losses(weight.as_slice().unwrap()).1;
    let solved = of_f32 < 1e-8 * start && of_eight < 3.0 * of_f32;
    assert!(solved, "{start:e} {of_f32:e} {of_eight:e}");
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    for wrong in ["gradient", "m.codes", "m.absmax", "v.codes", "v.absmax"] {
        for of_type in [false, true] {
            let make = |name, dtype, len: usize| match (name == wrong, of_type) {
                (true, true) => zeros(DType::F16, len),
                (true, false) => zeros(dtype, len - 1),
                (false, _) => zeros(dtype, len),
            };
            let gradient = make("gradient", DType::F32, 257);
            let mut parameter = Parameter {
                weight: zeros(DType::F32, 257),
                m: (
                    make("m.codes", DType::U8, 257),
                    make("m.absmax", DType::F32, 2),
                ),
                v: (
                    make("v.codes", DType::U8, 257),
                    make("v.absmax", DType::F32, 2),
                ),
            };
            let args = parameter.update(&gradient, hyperparameters(1, 1.0, OPTIONS));
            let error = args.check().unwrap_err();
            assert!(error.to_string().contains(&format!("`{wrong}`")), "{error}");
        }
    }
    let gradient = zeros(DType::F32, 5);
    let mut parameter = Parameter::new(&cpu, &[0.0; 5]);
    let args = parameter.update(&gradient, hyperparameters(0, 1.0, OPTIONS));
    assert!(matches!(
        args.check(),
        Err(KernelError::Value {
            operand: "step",
            ..
        })
    ));
}
