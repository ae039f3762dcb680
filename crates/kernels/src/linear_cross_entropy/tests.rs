//! The fused loss against the f64 oracle that holds everything in memory.

use super::*;
use half::bf16;
use tightrope_device::Cpu;
use tightrope_testkit::{Random, assert_close, oracle::linear_cross_entropy as oracle, widen};

struct Case {
    hidden: usize,
    vocabulary: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    targets: Vec<i32>,
    logit_scale: f32,
    softcap: Option<f32>,
}

const SCALE: f32 = 0.125;

/// `losses`, `dx`, `dweight` (which started at 0.5).
type Results = [Vec<f32>; 3];

impl Case {
    fn new((tokens, hidden, vocabulary): (usize, usize, usize), every: usize) -> Self {
        let mut random = Random::new((tokens * 7 + vocabulary) as u64);
        Self {
            hidden,
            vocabulary,
            x: random.normal(tokens * hidden, 1.0),
            weight: random.normal(vocabulary * hidden, 1.0),
            targets: (0..tokens)
                .map(|t| {
                    if t % every == 0 {
                        random.below(vocabulary) as i32
                    } else {
                        -100
                    }
                })
                .collect(),
            logit_scale: 0.5,
            softcap: None,
        }
    }

    fn run(&self, cpu: &Cpu) -> Result<Results, KernelError> {
        let (tokens, hidden, vocabulary) = (self.targets.len(), self.hidden, self.vocabulary);
        let x = Tensor::from_slice(cpu, &[tokens, hidden], &self.x)?;
        let weight = Tensor::from_slice(cpu, &[vocabulary, hidden], &self.weight)?;
        self.run_with(cpu, &x, &weight)
    }

    fn run_with(
        &self,
        cpu: &Cpu,
        x: &Tensor<Cpu>,
        weight: &Tensor<Cpu>,
    ) -> Result<Results, KernelError> {
        let (tokens, hidden, vocabulary) = (self.targets.len(), self.hidden, self.vocabulary);
        let targets = Tensor::from_slice(cpu, &[tokens], &self.targets)?;
        let filled = |shape: &[usize], value: f32| {
            Tensor::from_slice(cpu, shape, &vec![value; shape.iter().product()])
        };
        let mut losses = filled(&[tokens], f32::NAN)?;
        let mut only = filled(&[tokens], f32::NAN)?;
        let mut dx = filled(&[tokens, hidden], f32::NAN)?;
        let mut dweight = filled(&[vocabulary, hidden], 0.5)?;
        let forward = |losses| Forward {
            x,
            weight,
            targets: &targets,
            logit_scale: self.logit_scale,
            softcap: self.softcap,
            losses,
            tokens,
            hidden,
            vocabulary,
        };
        cpu.linear_cross_entropy_forward(forward(&mut only).checked()?)?;
        let args = ForwardBackward {
            forward: forward(&mut losses),
            scale: SCALE,
            dx: &mut dx,
            dweight: Some(&mut dweight),
        };
        cpu.linear_cross_entropy_forward_backward(args.checked()?)?;
        let same = only
            .to_f32_vec()?
            .iter()
            .zip(losses.to_f32_vec()?)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "the loss depends on whether gradients are wanted");
        Ok([
            losses.to_f32_vec()?,
            dx.to_f32_vec()?,
            dweight.to_f32_vec()?,
        ])
    }

    fn expected(&self) -> [Vec<f64>; 3] {
        let options = oracle::Options {
            logit_scale: self.logit_scale.into(),
            softcap: self.softcap.map(f64::from),
        };
        let output = oracle::forward_backward(
            &widen(&self.x),
            &widen(&self.weight),
            &self.targets,
            self.hidden,
            options,
        );
        let scale = f64::from(SCALE);
        [
            output.losses,
            output.dx.iter().map(|d| scale * d).collect(),
            output.dweight.iter().map(|d| 0.5 + scale * d).collect(),
        ]
    }

    #[track_caller]
    fn compare(&self, cpu: &Cpu) {
        let [losses, dx, dweight] = self.run(cpu).unwrap();
        let expected = self.expected();
        assert_close("losses", &losses, &expected[0], 4e-6, 4e-6);
        assert_close("dx", &dx, &expected[1], 4e-6, 4e-6);
        assert_close("dweight", &dweight, &expected[2], 4e-6, 4e-6);
    }
}

#[test]
fn every_result_matches_the_oracle() {
    let cpu = Cpu::new(2).unwrap();
    let shapes = [
        (0, 4, 5),
        (1, 1, 1),
        (3, 5, 2),
        (20, 16, 17),
        (33, 40, 301),
        (140, 24, 515),
    ];
    for shape in shapes {
        for every in [1, 3, 1000] {
            for softcap in [None, Some(3.0)] {
                let mut case = Case::new(shape, every);
                case.softcap = softcap;
                case.compare(&cpu);
            }
        }
    }
}

#[test]
fn several_chunks_add_up() {
    // 128 rows a chunk at this vocabulary would need 64 MiB; the rows are capped at 1,024.
    let cpu = Cpu::new(2).unwrap();
    Case::new((2100, 3, 7), 1).compare(&cpu);
    Case::new((2100, 3, 7), 2).compare(&cpu);
}

#[test]
fn bits_do_not_depend_on_threads() {
    let case = Case::new((140, 24, 515), 2);
    let one = case.run(&Cpu::new(1).unwrap()).unwrap();
    for threads in [2, 3] {
        assert_eq!(one, case.run(&Cpu::new(threads).unwrap()).unwrap());
    }
}

#[test]
fn a_row_has_the_same_bits_wherever_it_stands() {
    let cpu = Cpu::new(2).unwrap();
    let full = Case::new((90, 24, 301), 1);
    let whole = full.run(&cpu).unwrap();
    for (start, len) in [(0, 1), (89, 1), (13, 9)] {
        let mut part = Case::new((90, 24, 301), 1);
        part.x = full.x[start * 24..][..len * 24].to_vec();
        part.targets = full.targets[start..][..len].to_vec();
        let alone = part.run(&cpu).unwrap();
        assert_eq!(alone[0], whole[0][start..][..len]);
        assert_eq!(alone[1], whole[1][start * 24..][..len * 24]);
    }
}

#[test]
fn a_confident_prediction_keeps_its_digits() {
    // Logits 0 and 20: the loss is 2·10⁻⁹ and so is `p − 1`, which subtraction would make 0.
    let cpu = Cpu::new(1).unwrap();
    let case = Case {
        hidden: 1,
        vocabulary: 2,
        x: vec![1.0],
        weight: vec![0.0, 20.0],
        targets: vec![1],
        logit_scale: 1.0,
        softcap: None,
    };
    let [losses, dx, _] = case.run(&cpu).unwrap();
    let expected = case.expected();
    let loss = (-20f64).exp().ln_1p();
    assert_close("losses", &losses, &[loss], 0.0, 1e-6);
    assert_close("dx", &dx, &expected[1], 0.0, 1e-6);
}

#[test]
fn large_logits_do_not_overflow() {
    let cpu = Cpu::new(1).unwrap();
    let mut case = Case::new((20, 16, 50), 1);
    case.x.iter_mut().for_each(|x| *x *= 1000.0);
    let [losses, dx, _] = case.run(&cpu).unwrap();
    let expected = case.expected();
    // Logits near 10⁴ are themselves rounded to about 10⁻³.
    assert_close("losses", &losses, &expected[0], 4e-3, 4e-6);
    assert!(dx.iter().all(|d| d.is_finite()));
}

#[test]
fn stored_weights_are_read_exactly() {
    let cpu = Cpu::new(2).unwrap();
    let mut case = Case::new((9, 24, 65), 1);
    let stored: Vec<bf16> = case.weight.iter().map(|&w| bf16::from_f32(w)).collect();
    let weight = Tensor::from_slice(&cpu, &[65, 24], &stored).unwrap();
    let x = Tensor::from_slice(&cpu, &[9, 24], &case.x).unwrap();
    let got = case.run_with(&cpu, &x, &weight).unwrap();
    case.weight = stored.iter().map(|w| w.to_f32()).collect();
    for (got, expected) in got.iter().zip(case.expected()) {
        assert_close("bf16", got, &expected, 4e-6, 4e-6);
    }
}

#[test]
fn a_nan_stays_in_its_row_and_is_not_hidden() {
    let cpu = Cpu::new(2).unwrap();
    let mut case = Case::new((12, 8, 40), 1);
    case.x[5 * 8] = f32::NAN;
    let [losses, dx, dweight] = case.run(&cpu).unwrap();
    for (t, loss) in losses.iter().enumerate() {
        assert_eq!(loss.is_nan(), t == 5);
    }
    for (index, d) in dx.iter().enumerate() {
        assert_eq!(d.is_nan(), index / 8 == 5);
    }
    assert!(dweight.iter().all(|d| d.is_nan()));
}

#[test]
fn a_target_outside_the_vocabulary_is_named() {
    let cpu = Cpu::new(1).unwrap();
    let mut case = Case::new((3, 4, 5), 1);
    case.targets[2] = 5;
    let error = case.run(&cpu).unwrap_err();
    assert_eq!(error.to_string(), "`targets[2]` is 5, outside 0..5");
}
