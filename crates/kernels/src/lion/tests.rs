//! Lion against f64; bits on every device and for any number of threads; checks.

use super::*;
use half::bf16;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{Random, cuda};

const OPTIONS: Hyperparameters = Hyperparameters {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.99,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 0.3,
};
/// Half a unit in the last place: the error of one rounding.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

struct Parameter<D: Lion> {
    weight: Tensor<D>,
    m: Tensor<D>,
}

impl<D: Lion> Parameter<D> {
    fn new(device: &D, dtype: DType, weight: &[f32]) -> Self {
        Self {
            weight: Tensor::from_slice(device, &[weight.len()], weight).unwrap(),
            m: Tensor::zeros(device, dtype, &[weight.len()]).unwrap(),
        }
    }

    fn step(&mut self, gradient: &[f32], hyperparameters: Hyperparameters) {
        let device = self.weight.device().clone();
        let gradient = Tensor::from_slice(&device, &[gradient.len()], gradient).unwrap();
        let args = Update {
            weight: self.weight.view_mut(),
            gradient: gradient.view(),
            m: self.m.view_mut(),
            hyperparameters,
        };
        device.lion_update(args.checked().unwrap()).unwrap();
    }

    fn values(&self) -> [Vec<f32>; 2] {
        [&self.weight, &self.m].map(|tensor| tensor.to_f32_vec().unwrap())
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

/// Each step is compared with f64 from the stored values before it.
fn compare_with_the_formula<D: Lion>(device: &D) {
    for dtype in [DType::F32, DType::BF16] {
        for length in [0, 1, 5, 1024, 1027, 65_539] {
            let mut random = Random::new(length as u64);
            let mut parameter = Parameter::new(device, dtype, &random.normal(length, 1.0));
            for step in 1..=5 {
                let [w, m] = parameter.values();
                let gradient = random.normal(length, 1e-2);
                let h = Hyperparameters { step, ..OPTIONS };
                parameter.step(&gradient, h);
                let [w_new, m_new] = parameter.values();
                for i in 0..length {
                    let [w, m, g] = [w[i], m[i], gradient[i]].map(f64::from);
                    let g = h.gradient_scale * g;
                    let c = h.beta1 * m + (1.0 - h.beta1) * g;
                    let size = m.abs() + g.abs();
                    let decayed = w * (1.0 - h.learning_rate * h.weight_decay);
                    let expected = decayed - h.learning_rate * c.signum();
                    // A sum of terms that cancel may have either sign.
                    if c.abs() > 4.0 * UNIT * size {
                        let error = (f64::from(w_new[i]) - expected).abs();
                        assert!(error <= 3.0 * UNIT * (w.abs() + 0.01), "{error:e}");
                    }
                    let expected = h.beta2 * m + (1.0 - h.beta2) * g;
                    let rounding = match dtype {
                        DType::BF16 => f64::from(bf16::EPSILON) * expected.abs(),
                        _ => 0.0,
                    };
                    let error = (f64::from(m_new[i]) - expected).abs();
                    assert!(error <= rounding + 5.0 * UNIT * size, "{error:e}");
                }
            }
        }
    }
}

#[test]
fn nothing_moves_without_momentum_and_gradient_and_nan_stays() {
    let cpu = Cpu::new(1).unwrap();
    let mut parameter = Parameter::new(&cpu, DType::F32, &[2.0, 2.0, 2.0]);
    let still = Hyperparameters {
        weight_decay: 0.0,
        ..OPTIONS
    };
    parameter.step(&[0.0, -1.0, f32::NAN], still);
    let [w, m] = parameter.values();
    assert_eq!(w[..2], [2.0, 2.01]);
    assert!(w[2].is_nan() && m[2].is_nan());
}

#[test]
fn every_device_and_number_of_threads_has_the_same_bits() {
    let mut gradient = Random::new(2).normal(100_003, 1.0);
    let weight = Random::new(1).normal(100_003, 1.0);
    gradient[1000..1006].copy_from_slice(&[0.0, -0.0, 1e-30, -1e-42, f32::MAX, f32::INFINITY]);
    fn run<D: Lion>(device: &D, dtype: DType, weight: &[f32], gradient: &[f32]) -> Vec<u32> {
        let mut parameter = Parameter::new(device, dtype, weight);
        for step in 1..=3 {
            parameter.step(gradient, Hyperparameters { step, ..OPTIONS });
        }
        let values = parameter.values().concat();
        values.into_iter().map(f32::to_bits).collect()
    }
    for dtype in [DType::F32, DType::BF16] {
        let expected = run(&Cpu::new(1).unwrap(), dtype, &weight, &gradient);
        let threads = Cpu::new(3).unwrap();
        assert!(run(&threads, dtype, &weight, &gradient) == expected);
        let (weight, gradient) = (&weight[..2051], &gradient[..2051]);
        let expected = run(&threads, dtype, weight, gradient);
        let wide = cuda().forcing(IndexWidth::Wide);
        for device in [cuda(), &wide] {
            assert!(run(device, dtype, weight, gradient) == expected);
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let gradient = zeros(DType::F32, 5);
    let refused = |weight: &mut Tensor<Cpu>, m: &mut Tensor<Cpu>, h| {
        let args = Update {
            weight: weight.view_mut(),
            gradient: gradient.view(),
            m: m.view_mut(),
            hyperparameters: h,
        };
        args.check().unwrap_err().to_string()
    };
    let (mut weight, mut m) = (zeros(DType::F32, 5), zeros(DType::BF16, 5));
    let short = refused(&mut weight, &mut zeros(DType::F32, 4), OPTIONS);
    assert!(short.contains("`m`"), "{short}");
    let half = refused(&mut weight, &mut zeros(DType::F16, 5), OPTIONS);
    assert!(half.contains("f32 or bf16"), "{half}");
    let long = refused(&mut zeros(DType::F32, 6), &mut m, OPTIONS);
    assert!(long.contains("`gradient`"), "{long}");
    for beta in [-0.1, 1.0, f64::NAN] {
        let one = Hyperparameters {
            beta1: beta,
            ..OPTIONS
        };
        assert!(refused(&mut weight, &mut m, one).contains("`beta1`"));
        let two = Hyperparameters {
            beta2: beta,
            ..OPTIONS
        };
        assert!(refused(&mut weight, &mut m, two).contains("`beta2`"));
    }
}
