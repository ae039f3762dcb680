//! Schedule-free AdamW against f64; bits on every device; what the average is; checks.

use super::*;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{Random, cuda};

const OPTIONS: Hyperparameters = Hyperparameters {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    average: 0.25,
    step: 1,
    gradient_scale: 0.3,
};
/// Half a unit in the last place: the error of one rounding.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

struct Parameter<D: ScheduleFree> {
    y: Tensor<D>,
    z: Tensor<D>,
    v: Tensor<D>,
}

impl<D: ScheduleFree> Parameter<D> {
    fn new(device: &D, weight: &[f32]) -> Self {
        let weights = || Tensor::from_slice(device, &[weight.len()], weight).unwrap();
        Self {
            y: weights(),
            z: weights(),
            v: Tensor::zeros(device, DType::F32, &[weight.len()]).unwrap(),
        }
    }

    fn step(&mut self, gradient: &[f32], hyperparameters: Hyperparameters) {
        let device = self.y.device().clone();
        let gradient = Tensor::from_slice(&device, &[gradient.len()], gradient).unwrap();
        let args = Update {
            y: self.y.view_mut(),
            gradient: gradient.view(),
            z: self.z.view_mut(),
            v: self.v.view_mut(),
            hyperparameters,
        };
        device
            .schedule_free_update(args.checked().unwrap())
            .unwrap();
    }

    fn average(&mut self) {
        let device = self.y.device().clone();
        let args = Average {
            y: self.y.view_mut(),
            z: self.z.view(),
            beta1: OPTIONS.beta1,
        };
        device
            .schedule_free_average(args.checked().unwrap())
            .unwrap();
    }

    fn values(&self) -> [Vec<f32>; 3] {
        [&self.y, &self.z, &self.v].map(|tensor| tensor.to_vec().unwrap())
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
fn compare_with_the_formula<D: ScheduleFree>(device: &D) {
    for length in [0, 1, 5, 1024, 1027, 65_539] {
        let mut random = Random::new(length as u64);
        let mut parameter = Parameter::new(device, &random.normal(length, 1.0));
        for step in 1..=5 {
            let [y, z, v] = parameter.values();
            let gradient = random.normal(length, 1e-2);
            let h = Hyperparameters {
                step,
                average: 1.0 / step as f64,
                ..OPTIONS
            };
            parameter.step(&gradient, h);
            let [y_new, z_new, v_new] = parameter.values();
            let correction = 1.0 - h.beta2.powf(step as f64);
            for i in 0..length {
                let [y, z, v, g] = [y[i], z[i], v[i], gradient[i]].map(f64::from);
                let g = h.gradient_scale * g;
                let v = h.beta2 * v + (1.0 - h.beta2) * g * g;
                let change = g / ((v / correction).sqrt() + h.eps) + h.weight_decay * y;
                let rate = h.learning_rate * (1.0 - h.beta1 * (1.0 - h.average));
                let y_exact = y + h.average * (z - y) - rate * change;
                let z_exact = z - h.learning_rate * change;
                let size = y.abs() + z.abs() + 0.05 * (1.0 + change.abs());
                for (name, got, exact, tolerance) in [
                    ("v", v_new[i], v, 6.0 * UNIT * v),
                    ("y", y_new[i], y_exact, 6.0 * UNIT * size),
                    ("z", z_new[i], z_exact, 6.0 * UNIT * size),
                ] {
                    let error = (f64::from(got) - exact).abs();
                    assert!(error <= tolerance, "{name}: {error:e} {tolerance:e}");
                }
            }
        }
        let [y, z, _] = parameter.values();
        parameter.average();
        let [x, ..] = parameter.values();
        for i in 0..length {
            let [x, y, z] = [x[i], y[i], z[i]].map(f64::from);
            let exact = y + (1.0 - 1.0 / OPTIONS.beta1) * (z - y);
            assert!((x - exact).abs() <= 3.0 * UNIT * (y.abs() + z.abs()));
        }
    }
}

#[test]
fn the_average_is_that_of_all_iterates() {
    let cpu = Cpu::new(1).unwrap();
    let mut parameter = Parameter::new(&cpu, &[1.0, -2.0]);
    let mut sum = [0.0; 2];
    for step in 1..=8 {
        let h = Hyperparameters {
            step,
            average: 1.0 / step as f64,
            weight_decay: 0.0,
            ..OPTIONS
        };
        parameter.step(&[0.5 * step as f32 - 1.0, 1.0], h);
        let [_, z, _] = parameter.values();
        (0..2).for_each(|i| sum[i] += f64::from(z[i]));
    }
    parameter.average();
    let [x, ..] = parameter.values();
    for i in 0..2 {
        assert!(
            (f64::from(x[i]) - sum[i] / 8.0).abs() < 1e-6,
            "{x:?} {sum:?}"
        );
    }
}

#[test]
fn every_device_and_number_of_threads_has_the_same_bits() {
    let weight = Random::new(1).normal(100_003, 1.0);
    let mut gradient = Random::new(2).normal(100_003, 1.0);
    gradient[1000..1006].copy_from_slice(&[0.0, -0.0, 1e-30, -1e-42, 1e30, f32::INFINITY]);
    fn run<D: ScheduleFree>(device: &D, weight: &[f32], gradient: &[f32]) -> Vec<Option<u32>> {
        let mut parameter = Parameter::new(device, weight);
        for step in 1..=3 {
            parameter.step(gradient, Hyperparameters { step, ..OPTIONS });
        }
        let trained = parameter.values().concat();
        parameter.average();
        let all = [trained, parameter.values().concat()].concat();
        // One NaN is as good as another.
        let bits = |x: f32| (!x.is_nan()).then_some(x.to_bits());
        all.into_iter().map(bits).collect()
    }
    let expected = run(&Cpu::new(1).unwrap(), &weight, &gradient);
    let threads = Cpu::new(3).unwrap();
    assert!(run(&threads, &weight, &gradient) == expected);
    let (weight, gradient) = (&weight[..2051], &gradient[..2051]);
    let expected = run(&threads, weight, gradient);
    let wide = cuda().forcing(IndexWidth::Wide);
    for device in [cuda(), &wide] {
        assert!(run(device, weight, gradient) == expected);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |len: usize| Tensor::zeros(&cpu, DType::F32, &[len]).unwrap();
    let refused = |[y, gradient, z, v]: [usize; 4], hyperparameters| {
        let error = Update {
            y: zeros(y).view_mut(),
            gradient: zeros(gradient).view(),
            z: zeros(z).view_mut(),
            v: zeros(v).view_mut(),
            hyperparameters,
        }
        .check();
        error.unwrap_err().to_string()
    };
    for (lengths, operand) in [
        ([5, 4, 5, 5], "`gradient`"),
        ([5, 5, 4, 5], "`z`"),
        ([5, 5, 5, 4], "`v`"),
    ] {
        let error = refused(lengths, OPTIONS);
        assert!(error.contains(operand), "{error}");
    }
    for (wrong, operand) in [
        (Hyperparameters { step: 0, ..OPTIONS }, "`step`"),
        (
            Hyperparameters {
                beta1: 0.0,
                ..OPTIONS
            },
            "`beta1`",
        ),
        (
            Hyperparameters {
                beta2: 1.0,
                ..OPTIONS
            },
            "`beta2`",
        ),
    ] {
        let error = refused([5; 4], wrong);
        assert!(error.contains(operand), "{error}");
    }
}
