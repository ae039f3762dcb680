//! A reward model (Bradley–Terry, as in Ouyang et al., 2022): with the scores `s_c` of the better and
//! `s_w` of the worse answer, the loss of a pair is `−ln σ(s_c − s_w) + λ·(s_c + s_w)²`, where `λ`
//! keeps the scores around 0 (Eisenstein et al., 2023). A step's loss is the mean over its pairs.

use super::{Objective, Results, Rewards, Totals, log_sigmoid, sigmoid};
use crate::{TrainError, config::ObjectiveSection};
use tightrope_model::{Backend, Model, TrainableModel};
use tightrope_packing::Batch;

/// Trains or measures the scores of pairs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reward {
    /// `λ`.
    centering: f64,
}

impl Reward {
    pub(super) fn new(section: &ObjectiveSection) -> Self {
        Self {
            centering: section.center_rewards_coefficient.unwrap_or_default(),
        }
    }

    /// Loss of a pair, and its derivatives by the two scores.
    fn compare(&self, [chosen, rejected]: [f64; 2]) -> (f64, [f64; 2]) {
        let (margin, sum) = (chosen - rejected, chosen + rejected);
        let loss = -log_sigmoid(margin) + self.centering * sum * sum;
        let (pull, centre) = (-sigmoid(-margin), 2.0 * self.centering * sum);
        (loss, [centre + pull, centre - pull])
    }

    /// Results of a batch from the scores of its answers; those of a pair follow each other. Writes
    /// the derivative by each score if it is wanted.
    pub(super) fn results(
        &self,
        scores: &[f64],
        totals: Totals,
        mut slopes: Option<&mut [f64]>,
    ) -> Results {
        let mut results = Results::default();
        for (index, pair) in scores.as_chunks::<2>().0.iter().enumerate() {
            let (loss, by_score) = self.compare(*pair);
            results += Results {
                loss: loss / totals.pairs,
                rewards: Rewards::of_pair(*pair, totals.pairs),
            };
            if let Some(slopes) = slopes.as_deref_mut() {
                let of_pair = &mut slopes[2 * index..][..2];
                of_pair.copy_from_slice(&by_score.map(|slope| slope / totals.pairs));
            }
        }
        results
    }
}

impl<D: Backend> Objective<D> for Reward {
    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        totals: Totals,
        salt: u64,
    ) -> Result<Results, TrainError> {
        let mut results = Results::default();
        let mut slopes = |scores: &[f64], slopes: &mut [f64]| {
            results = self.results(scores, totals, Some(slopes));
        };
        model.forward_backward_scores(pass, &mut slopes, salt)?;
        Ok(results)
    }

    fn evaluate(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        totals: [Totals; 2],
    ) -> Result<[Results; 2], TrainError> {
        let scores = model.scores(batch)?;
        Ok(totals.map(|totals| self.results(&scores, totals, None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_the_derivatives_and_stay_finite() {
        for centering in [0.0, 0.3] {
            let reward = Reward { centering };
            for scores in [[0.7, -0.4], [-3.0, 5.0], [0.0, 0.0]] {
                let (_, slopes) = reward.compare(scores);
                for side in 0..2 {
                    let at = |step: f64| {
                        let mut moved = scores;
                        moved[side] += step;
                        reward.compare(moved).0
                    };
                    let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!((slopes[side] - expected).abs() < 1e-8, "{scores:?}");
                }
            }
            let (loss, slopes) = Reward { centering: 0.0 }.compare([-1e5, 1e5]);
            assert_eq!((loss, slopes), (2e5, [-1.0, 1.0]));
        }
    }
}
