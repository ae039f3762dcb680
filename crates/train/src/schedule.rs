//! The learning rate over the run.

use crate::config::{DecayShape, ScheduleKind, ScheduleSection};
use std::f64::consts::PI;

/// A learning rate for each step; no step has the rate zero unless it is `min_ratio`.
///
/// Let `s` be counted from 0, `W` be the warm-up steps, `S` all steps and `m` the ratio of the
/// lowest to the highest rate. The factor is `(s + 1) / W` while `s < W`; then, with `p = (s − W) /
/// (S − W)`, it is
///
/// - cosine: `m + (1 − m)(1 + cos πp) / 2`
/// - cosine-restarts, `c` cycles: the same with the fraction of `cp` in place of `p`
/// - linear: `m + (1 − m)(1 − p)`
/// - polynomial, power `k`: `m + (1 − m)(1 − p)ᵏ`
/// - constant: 1
/// - inverse-sqrt, time scale `T`: `√(T / (s − W + T))`
/// - wsd, `D` steps of decay: 1 before the last `D` steps, then with `p = (s − S + D) / D` the
///   shape of the decay: linear, cosine, or `m + (1 − m)(1 − √p)` for 1-sqrt.
///
/// After the warm-up these are the factors of `transformers.optimization` for the same `s`. There
/// the warm-up is `s / W`: its first step does nothing, and step `W` is the first with the highest
/// rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    highest: f64,
    warmup_steps: u64,
    total_steps: u64,
}

/// Steps without a warm-up after which the rate of inverse-sqrt falls like the inverse root.
const TIMESCALE: u64 = 10_000;

impl Schedule {
    /// The schedule of a run of `total_steps`.
    pub fn new(section: &ScheduleSection, highest: f64, total_steps: u64) -> Self {
        let of_all = |ratio: f64| (ratio * total_steps as f64).ceil() as u64;
        let by_ratio = of_all(section.warmup_ratio.unwrap_or(0.0));
        let mut kind = section.kind;
        if let ScheduleKind::Wsd {
            decay_steps,
            decay_ratio,
            ..
        } = &mut kind
        {
            *decay_steps = Some(decay_steps.unwrap_or(of_all(decay_ratio.unwrap_or(0.0))));
        }
        Self {
            kind,
            highest,
            warmup_steps: section.warmup_steps.unwrap_or(by_ratio),
            total_steps,
        }
    }

    /// The learning rate of a step, counted from 1.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let s = step.saturating_sub(1);
        if s < self.warmup_steps {
            return self.highest * (s + 1) as f64 / self.warmup_steps as f64;
        }
        let after = (s - self.warmup_steps) as f64;
        let all = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let p = (after / all).min(1.0);
        let (falling, min_ratio) = match self.kind {
            ScheduleKind::Cosine { min_ratio } => (cosine(p), min_ratio),
            ScheduleKind::CosineRestarts { cycles, min_ratio } => {
                let place = if p < 1.0 {
                    (cycles as f64 * p).fract()
                } else {
                    1.0
                };
                (cosine(place), min_ratio)
            }
            ScheduleKind::Linear { min_ratio } => (1.0 - p, min_ratio),
            ScheduleKind::Polynomial { power, min_ratio } => ((1.0 - p).powf(power), min_ratio),
            ScheduleKind::Constant => return self.highest,
            ScheduleKind::InverseSqrt { timescale } => {
                let usual = match self.warmup_steps {
                    0 => TIMESCALE,
                    steps => steps,
                };
                let timescale = timescale.unwrap_or(usual) as f64;
                return self.highest * (timescale / (after + timescale)).sqrt();
            }
            ScheduleKind::Wsd {
                decay_shape,
                min_ratio,
                ..
            } => {
                let (start, steps) = self.decay();
                if s < start {
                    return self.highest;
                }
                let p = ((s - start) as f64 / steps.max(1) as f64).min(1.0);
                let falling = match decay_shape {
                    DecayShape::Linear => 1.0 - p,
                    DecayShape::Cosine => cosine(p),
                    DecayShape::OneMinusSqrt => 1.0 - p.sqrt(),
                };
                (falling, min_ratio)
            }
        };
        self.highest * (min_ratio + (1.0 - min_ratio) * falling)
    }

    /// First step of the decay of wsd, counted from 0, and its length. It does not begin before the
    /// warm-up ends.
    fn decay(&self) -> (u64, u64) {
        let steps = match self.kind {
            ScheduleKind::Wsd { decay_steps, .. } => decay_steps.unwrap_or(0),
            _ => 0,
        };
        let start = self.total_steps.saturating_sub(steps);
        (start.max(self.warmup_steps), steps)
    }

    /// Number of warm-up steps, if the run ends before they do.
    pub fn unfinished_warmup(&self) -> Option<u64> {
        (self.warmup_steps > self.total_steps).then_some(self.warmup_steps)
    }

    /// Number of steps of the decay, if the run ends before they do.
    pub fn unfinished_decay(&self) -> Option<u64> {
        let (start, steps) = self.decay();
        (steps > 0 && start + steps > self.total_steps).then_some(steps)
    }

    /// Whether the rates depend on the total number of steps.
    pub fn depends_on_length(section: &ScheduleSection) -> bool {
        let by_ratio = section.warmup_ratio.is_some_and(|r| r > 0.0);
        let endless = matches!(
            section.kind,
            ScheduleKind::Constant | ScheduleKind::InverseSqrt { .. }
        );
        !endless || by_ratio
    }
}

fn cosine(p: f64) -> f64 {
    0.5 * (1.0 + (PI * p).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FALLING: f64 = 0.0;

    fn rates(
        kind: ScheduleKind,
        (warmup_steps, warmup_ratio): (Option<u64>, Option<f64>),
    ) -> Vec<f64> {
        let section = ScheduleSection {
            kind,
            warmup_steps,
            warmup_ratio,
        };
        let schedule = Schedule::new(&section, 2.0, 6);
        (1..=6).map(|step| schedule.learning_rate(step)).collect()
    }

    fn assert_rates(actual: &[f64], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            let close = (a - e).abs() <= 1e-15;
            assert!(close, "{actual:?} is not {expected:?}");
        }
    }

    #[test]
    fn every_kind_has_its_exact_values() {
        let (warm, min_ratio) = ((Some(2), None), FALLING);
        let linear = rates(ScheduleKind::Linear { min_ratio }, warm);
        assert_rates(&linear, &[1.0, 2.0, 2.0, 1.5, 1.0, 0.5]);
        let half = 0.5f64.sqrt();
        let cosine = rates(ScheduleKind::Cosine { min_ratio }, warm);
        assert_rates(&cosine, &[1.0, 2.0, 2.0, 1.0 + half, 1.0, 1.0 - half]);
        let constant = rates(ScheduleKind::Constant, warm);
        assert_rates(&constant, &[1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        let lowest = rates(ScheduleKind::Linear { min_ratio: 0.5 }, (Some(0), None));
        let expected: Vec<f64> = (0..6).map(|s| 2.0 - f64::from(s) / 6.0).collect();
        assert_rates(&lowest, &expected);
        let square = ScheduleKind::Polynomial {
            power: 2.0,
            min_ratio,
        };
        assert_rates(&rates(square, warm), &[1.0, 2.0, 2.0, 1.125, 0.5, 0.125]);
        let twice = ScheduleKind::CosineRestarts {
            cycles: 2,
            min_ratio,
        };
        assert_rates(&rates(twice, warm), &[1.0, 2.0, 2.0, 1.0, 2.0, 1.0]);
        let root = rates(ScheduleKind::InverseSqrt { timescale: None }, warm);
        let of = |x: f64| 2.0 * x.sqrt();
        assert_rates(&root, &[1.0, 2.0, 2.0, of(2.0 / 3.0), of(0.5), of(0.4)]);
        let wsd = |decay_shape| ScheduleKind::Wsd {
            decay_steps: Some(2),
            decay_ratio: None,
            decay_shape,
            min_ratio: 0.5,
        };
        let decay = rates(wsd(DecayShape::Linear), warm);
        assert_rates(&decay, &[1.0, 2.0, 2.0, 2.0, 2.0, 1.5]);
        let decay = rates(wsd(DecayShape::OneMinusSqrt), warm);
        assert_rates(&decay, &[1.0, 2.0, 2.0, 2.0, 2.0, 2.0 - half]);
    }

    #[test]
    fn a_ratio_of_warm_up_is_rounded_up() {
        let kind = ScheduleKind::Linear { min_ratio: FALLING };
        let by_ratio = rates(kind, (None, Some(0.2)));
        let by_steps = rates(kind, (Some(2), None));
        assert_eq!(by_ratio, by_steps);
    }

    #[test]
    fn a_warm_up_longer_than_the_run_only_rises() {
        let kind = ScheduleKind::Cosine { min_ratio: FALLING };
        let rising = rates(kind, (Some(12), None));
        let expected: Vec<f64> = (1..=6).map(|s| f64::from(s) / 6.0).collect();
        assert_rates(&rising, &expected);
    }

    #[test]
    fn a_decay_that_does_not_fit_behind_the_warm_up_is_known() {
        let schedule = |warmup, decay| {
            let section = ScheduleSection {
                kind: ScheduleKind::Wsd {
                    decay_steps: Some(decay),
                    decay_ratio: None,
                    decay_shape: DecayShape::Linear,
                    min_ratio: FALLING,
                },
                warmup_steps: Some(warmup),
                warmup_ratio: None,
            };
            Schedule::new(&section, 2.0, 6)
        };
        assert_eq!(schedule(2, 4).unfinished_decay(), None);
        assert_eq!(schedule(3, 4).unfinished_decay(), Some(4));
        let rate = schedule(3, 4).learning_rate(4);
        assert_eq!(rate, 2.0);
    }
}
