//! The learning rate over the run.

use crate::config::{ScheduleKind, ScheduleSection};
use std::f64::consts::PI;

/// A learning rate for each step; no step has the rate zero.
///
/// Let `s` be counted from 0, `W` be the warm-up steps, `S` all steps and `m` the ratio of the
/// lowest to the highest rate. The factor is `(s + 1) / W` while `s < W`; then, with `p = (s − W) /
/// (S − W)`, it is `m + (1 − m)(1 + cos πp) / 2` for cosine, `m + (1 − m)(1 − p)` for linear and 1
/// for constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    highest: f64,
    min_ratio: f64,
    warmup_steps: u64,
    total_steps: u64,
}

impl Schedule {
    /// The schedule of a run of `total_steps`.
    pub fn new(section: &ScheduleSection, highest: f64, total_steps: u64) -> Self {
        let ratio = section.warmup_ratio.unwrap_or(0.0);
        let by_ratio = (ratio * total_steps as f64).ceil() as u64;
        Self {
            kind: section.kind,
            highest,
            min_ratio: section.min_ratio,
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
        let falling = match self.kind {
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * p).cos()),
            ScheduleKind::Linear => 1.0 - p,
            ScheduleKind::Constant => return self.highest,
        };
        self.highest * (self.min_ratio + (1.0 - self.min_ratio) * falling)
    }

    /// Number of warm-up steps, if the run ends before they do.
    pub fn unfinished_warmup(&self) -> Option<u64> {
        (self.warmup_steps > self.total_steps).then_some(self.warmup_steps)
    }

    /// Whether the rates depend on the total number of steps.
    pub fn depends_on_length(section: &ScheduleSection) -> bool {
        section.kind != ScheduleKind::Constant || section.warmup_ratio.is_some_and(|r| r > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: ScheduleKind, warmup: (Option<u64>, Option<f64>), min_ratio: f64) -> Vec<f64> {
        let section = ScheduleSection {
            kind,
            warmup_steps: warmup.0,
            warmup_ratio: warmup.1,
            min_ratio,
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
        let warm = (Some(2), None);
        let linear = rates(ScheduleKind::Linear, warm, 0.0);
        assert_rates(&linear, &[1.0, 2.0, 2.0, 1.5, 1.0, 0.5]);
        let half = 0.5f64.sqrt();
        let cosine = rates(ScheduleKind::Cosine, warm, 0.0);
        assert_rates(&cosine, &[1.0, 2.0, 2.0, 1.0 + half, 1.0, 1.0 - half]);
        let constant = rates(ScheduleKind::Constant, warm, 0.5);
        assert_rates(&constant, &[1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        let lowest = rates(ScheduleKind::Linear, (Some(0), None), 0.5);
        let expected: Vec<f64> = (0..6).map(|s| 2.0 - f64::from(s) / 6.0).collect();
        assert_rates(&lowest, &expected);
    }

    #[test]
    fn a_ratio_of_warm_up_is_rounded_up() {
        let by_ratio = rates(ScheduleKind::Linear, (None, Some(0.2)), 0.0);
        let by_steps = rates(ScheduleKind::Linear, (Some(2), None), 0.0);
        assert_eq!(by_ratio, by_steps);
    }

    #[test]
    fn a_warm_up_longer_than_the_run_only_rises() {
        let rising = rates(ScheduleKind::Cosine, (Some(12), None), 0.0);
        let expected: Vec<f64> = (1..=6).map(|s| f64::from(s) / 6.0).collect();
        assert_rates(&rising, &expected);
    }
}
