//! Objectives that compare two answers to one prompt.
//!
//! With `l` the sum of an answer's log-probabilities, `l̄` their mean over the answer's tokens, `r`
//! and `r̄` the same of the reference model, `c` the better and `w` the worse answer, and `σ` the
//! logistic function, the loss of a pair is
//! - DPO (Rafailov et al., 2023): `−(1 − ε)·ln σ(z) − ε·ln σ(−z)` with
//!   `z = β·((l_c − r_c) − (l_w − r_w))` and label smoothing `ε` (cDPO);
//! - IPO (Azar et al., 2023): `((l̄_c − r̄_c) − (l̄_w − r̄_w) − 1 / (2β))²`;
//! - SimPO (Meng et al., 2024): as DPO with `z = β·(l̄_c − l̄_w) − γ`;
//! - CPO (Xu et al., 2024): as DPO with `z = β·(l_c − l_w)`;
//! - ORPO (Hong et al., 2024): `−β·ln σ(o(l̄_c) − o(l̄_w))` with the log odds
//!   `o(l̄) = l̄ − ln(1 − exp l̄)`.
//!
//! A step's loss is the mean over its pairs, plus `cross_entropy` times the mean cross-entropy of
//! all tokens of its better answers (for ORPO, of their prompts too). These are the formulas of TRL.
//! By the papers, IPO compares sums, and the cross-entropy is a mean over pairs: of the means over
//! each answer's tokens, for CPO of their sums.

use super::{Objective, References, Results, Rewards, Totals, log_sigmoid, sigmoid};
use crate::{
    TrainError,
    config::{Convention, ObjectiveKind, ObjectiveSection},
};
use std::{ops::Range, sync::Arc};
use tightrope_data::Progress;
use tightrope_model::{Adapters, Backend, Loss, Model, TokenWeights, TrainableModel};
use tightrope_packing::{Batch, IGNORED, Packing, RowSequence, Segment};

/// A method with its settings.
#[derive(Clone, Copy, Debug)]
struct Method {
    kind: ObjectiveKind,
    beta: f64,
    gamma: f64,
    label_smoothing: f64,
    /// Factor of the cross-entropy of the better answer.
    cross_entropy: f64,
    convention: Convention,
}

/// Loss of a pair, its derivatives by the two sums of log-probabilities, and the rewards.
#[derive(Clone, Copy, Debug)]
struct Compared {
    loss: f64,
    slopes: [f64; 2],
    rewards: [f64; 2],
}

impl Method {
    /// The method of a configuration.
    fn of(section: &ObjectiveSection) -> Self {
        Self {
            kind: section.kind,
            beta: section.beta.unwrap_or_default(),
            gamma: section.gamma.unwrap_or_default(),
            label_smoothing: section.label_smoothing.unwrap_or_default(),
            cross_entropy: section.cross_entropy.unwrap_or_default(),
            convention: section.convention.unwrap_or(Convention::Trl),
        }
    }

    /// Whether log-probabilities are means over the tokens of an answer.
    fn averages(&self) -> bool {
        match self.kind {
            ObjectiveKind::Ipo => self.convention == Convention::Trl,
            kind => matches!(kind, ObjectiveKind::Simpo | ObjectiveKind::Orpo),
        }
    }

    /// Divisor of the cross-entropy of a better answer with so many tokens.
    fn divisor(&self, tokens: f64, totals: Totals) -> f64 {
        match (self.convention, self.kind) {
            (Convention::Trl, ObjectiveKind::Orpo) => totals.chosen_steps,
            (Convention::Trl, _) => totals.chosen_tokens,
            (Convention::Paper, ObjectiveKind::Cpo) => totals.pairs,
            (Convention::Paper, _) => totals.pairs * tokens.max(1.0),
        }
    }

    /// Compares two answers with these sums of log-probabilities and numbers of tokens.
    fn compare(&self, sums: [f64; 2], tokens: [f64; 2], reference: [f64; 2]) -> Compared {
        let beta = self.beta;
        let by = if self.averages() { tokens } else { [1.0; 2] };
        let [chosen, rejected] = [0, 1].map(|side| (sums[side] - reference[side]) / by[side]);
        // Derivatives by the two values above.
        let (loss, slopes) = match self.kind {
            ObjectiveKind::Ipo => {
                let distance = chosen - rejected - 1.0 / (2.0 * beta);
                (distance * distance, [2.0 * distance, -2.0 * distance])
            }
            ObjectiveKind::Orpo => {
                // exp l̄ − 1, which keeps its digits near 1.
                let [less_c, less_r] = [chosen, rejected].map(|mean| mean.exp_m1().min(-1e-15));
                let odds = (chosen - (-less_c).ln()) - (rejected - (-less_r).ln());
                let slope = -beta * sigmoid(-odds);
                let loss = -beta * log_sigmoid(odds);
                (loss, [slope / -less_c, -slope / -less_r])
            }
            _ => {
                let smoothing = self.label_smoothing;
                let z = beta * (chosen - rejected) - self.gamma;
                let loss = -(1.0 - smoothing) * log_sigmoid(z) - smoothing * log_sigmoid(-z);
                let slope = smoothing * sigmoid(z) - (1.0 - smoothing) * sigmoid(-z);
                (loss, [beta * slope, -beta * slope])
            }
        };
        // As TRL does, IPO's rewards are of sums, although its loss is of means.
        let rewards = match self.kind {
            ObjectiveKind::Ipo => [0, 1].map(|side| sums[side] - reference[side]),
            _ => [chosen, rejected],
        };
        Compared {
            loss,
            slopes: [slopes[0] / by[0], slopes[1] / by[1]],
            rewards: rewards.map(|reward| beta * reward),
        }
    }

    /// Whether the cross-entropy includes the prompt.
    fn trains_prompts(&self) -> bool {
        self.kind == ObjectiveKind::Orpo && self.convention == Convention::Trl
    }
}

/// One answer in a batch.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// Example of the answer, and whether it is the better (0) or the worse one (1).
    pub(super) place: (usize, usize),
    /// Tokens of a beginning that it shares with the other answer, none of which is trained.
    shared: Range<usize>,
    pub(super) range: Range<usize>,
    /// Sum of the log-probabilities of the answer's tokens.
    pub(super) sum: f64,
    tokens: f64,
}

impl Side {
    /// All its tokens.
    fn all(&self) -> impl Iterator<Item = usize> + Clone {
        self.shared.clone().chain(self.range.clone())
    }
}

/// The answers of a batch; those of a pair follow each other.
pub(super) fn sides(batch: &Batch, losses: &[f32]) -> Vec<Side> {
    let side = |sequence: RowSequence<'_>| {
        let range = sequence.own.tokens();
        let targets = batch.targets()[range.clone()].iter();
        let trained = targets
            .zip(&losses[range.clone()])
            .filter(|(t, _)| **t >= 0);
        let (sum, tokens) = trained.fold((0.0, 0.0), |(sum, tokens), (_, &loss)| {
            (sum - f64::from(loss), tokens + 1.0)
        });
        Side {
            place: (sequence.unit, sequence.place),
            shared: sequence.prefix.map_or(0..0, Segment::tokens),
            range,
            sum,
            tokens,
        }
    };
    batch.segments().sequences().map(side).collect()
}

/// Sums of log-probabilities of both answers of each example of some packings. Examples that are
/// not packed have zeros.
pub(crate) fn reference<D: Backend>(
    model: &mut Model<D>,
    examples: tightrope_data::Examples<'_>,
    packings: &[&Packing],
    progress: &dyn Progress,
) -> Result<Vec<[f64; 2]>, TrainError> {
    let packs: usize = packings.iter().map(|packing| packing.len()).sum();
    progress.start("computing the reference", Some(packs as u64));
    let count = tightrope_packing::Units::count(&examples);
    let mut sums = vec![[0.0; 2]; count];
    let packs = packings
        .iter()
        .flat_map(|packing| (0..packing.len()).map(move |pack| (packing, pack)));
    for (packing, index) in packs {
        let batch = packing.batch(index, &examples, 0)?;
        let loss = model.evaluate(&batch)?;
        for side in sides(&batch, &loss.per_token) {
            sums[side.place.0][side.place.1] = side.sum;
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(sums)
}

/// Trains or measures a preference.
#[derive(Clone, Debug)]
pub(super) struct Preference {
    method: Method,
    /// `None`: the reference is the model without its adapter.
    references: Option<Arc<References>>,
}

impl Preference {
    pub(super) fn new(section: &ObjectiveSection, references: Option<Arc<References>>) -> Self {
        Self {
            method: Method::of(section),
            references,
        }
    }

    pub(super) fn has_reference(&self) -> bool {
        self.method.kind.has_reference()
    }

    /// Log-probabilities of the reference model for the pairs of a batch, in their order; nothing
    /// if the method has no reference. `stored` has those of all examples.
    fn reference<D: Backend>(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        stored: Option<&Vec<[f64; 2]>>,
    ) -> Result<Vec<[f64; 2]>, TrainError> {
        if !self.method.kind.has_reference() {
            return Ok(Vec::new());
        }
        let Some(stored) = stored else {
            let loss = model.evaluate_with(batch, Adapters::Off)?;
            let sides = sides(batch, &loss.per_token);
            let pairs = sides.chunks_exact(2);
            return Ok(pairs.map(|pair| [pair[0].sum, pair[1].sum]).collect());
        };
        let better = batch.segments().sequences().filter(|s| s.place == 0);
        let examples = better.map(|sequence| sequence.unit);
        let of = |example: usize| stored.get(example).copied().unwrap_or_default();
        Ok(examples.map(of).collect())
    }

    /// The batch with the targets whose losses are needed.
    pub(super) fn targets<'a>(&self, batch: &'a Batch, own: &'a mut Option<Batch>) -> &'a Batch {
        if !self.method.trains_prompts() {
            return batch;
        }
        let mut targets = batch.targets().to_vec();
        for better in batch.segments().sequences().filter(|s| s.place == 0) {
            for (token, next) in better.tokens().zip(better.tokens().skip(1)) {
                targets[token] = i32::try_from(batch.tokens()[next]).unwrap_or(IGNORED);
            }
        }
        own.insert(batch.with_targets(targets))
    }

    /// Results of a batch; writes the weights of the tokens if they are wanted. `with` has the
    /// targets whose losses are given, and `batch` those of the answers.
    pub(super) fn results(
        &self,
        batch: &Batch,
        with: &Batch,
        losses: &Loss,
        reference: &[[f64; 2]],
        totals: Totals,
        mut weights: Option<&mut [f32]>,
    ) -> Results {
        let mut results = Results::default();
        let policy = sides(batch, &losses.per_token);
        for (index, pair) in policy.chunks_exact(2).enumerate() {
            let [chosen, rejected] = pair else { continue };
            let reference = reference.get(index).copied().unwrap_or_default();
            let tokens = [chosen.tokens, rejected.tokens];
            let sums = [chosen.sum, rejected.sum];
            let compared = self.method.compare(sums, tokens, reference);
            // Cross-entropy of the better answer.
            let factor = self.method.cross_entropy / self.method.divisor(chosen.tokens, totals);
            let trained = chosen.all().filter(|&token| with.targets()[token] >= 0);
            let losses = trained
                .clone()
                .map(|token| f64::from(losses.per_token[token]));
            let entropy: f64 = losses.sum();
            results += Results {
                loss: compared.loss / totals.pairs + factor * entropy,
                rewards: Rewards::of_pair(compared.rewards, totals.pairs),
            };
            let Some(weights) = weights.as_deref_mut() else {
                continue;
            };
            for (side, slope) in [chosen, rejected].into_iter().zip(compared.slopes) {
                let answer = &batch.targets()[side.range.clone()];
                let weights = &mut weights[side.range.clone()];
                for (weight, target) in weights.iter_mut().zip(answer) {
                    // A loss is a log-probability with the other sign.
                    *weight = match *target >= 0 {
                        true => (-slope / totals.pairs) as f32,
                        false => 0.0,
                    };
                }
            }
            for token in trained {
                weights[token] += factor as f32;
            }
        }
        results
    }
}

impl<D: Backend> Objective<D> for Preference {
    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        totals: Totals,
        salt: u64,
    ) -> Result<Results, TrainError> {
        let stored = self.references.as_ref().map(|all| &all.train);
        let reference = self.reference(model, pass, stored)?;
        let mut own = None;
        let with = self.targets(pass, &mut own);
        let mut results = Results::default();
        let mut weigh = |loss: &Loss, weights: &mut [f32]| {
            results = self.results(pass, with, loss, &reference, totals, Some(weights));
        };
        model.forward_backward(with, TokenWeights::OfLosses(&mut weigh), salt)?;
        Ok(results)
    }

    fn evaluate(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        totals: [Totals; 2],
    ) -> Result<[Results; 2], TrainError> {
        let stored = self.references.as_ref().map(|all| &all.eval);
        let reference = self.reference(model, batch, stored)?;
        let mut own = None;
        let with = self.targets(batch, &mut own);
        let loss = model.evaluate(with)?;
        Ok(totals.map(|totals| self.results(batch, with, &loss, &reference, totals, None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ObjectiveKind; 5] = [
        ObjectiveKind::Dpo,
        ObjectiveKind::Ipo,
        ObjectiveKind::Simpo,
        ObjectiveKind::Cpo,
        ObjectiveKind::Orpo,
    ];

    fn method(kind: ObjectiveKind) -> Method {
        Method {
            kind,
            beta: 0.3,
            gamma: if kind == ObjectiveKind::Simpo {
                0.5
            } else {
                0.0
            },
            label_smoothing: match kind {
                ObjectiveKind::Dpo | ObjectiveKind::Cpo => 0.1,
                _ => 0.0,
            },
            cross_entropy: 0.0,
            convention: Convention::Trl,
        }
    }

    #[test]
    fn slopes_are_the_derivatives() {
        for kind in KINDS {
            let method = method(kind);
            let reference = match kind.has_reference() {
                true => [-6.0, -11.0],
                false => [0.0; 2],
            };
            let loss = |sums: [f64; 2]| method.compare(sums, [3.0, 5.0], reference).loss;
            for sums in [[-4.0, -9.0], [-12.0, -3.5], [-0.01, -40.0]] {
                let slopes = method.compare(sums, [3.0, 5.0], reference).slopes;
                for side in 0..2 {
                    let step = 1e-5;
                    let at = |sign: f64| {
                        let mut moved = sums;
                        moved[side] += sign * step;
                        loss(moved)
                    };
                    let expected = (at(1.0) - at(-1.0)) / (2.0 * step);
                    let close = (slopes[side] - expected).abs() <= 1e-7 * expected.abs().max(1.0);
                    assert!(close, "{kind:?} {sums:?}: {} {expected}", slopes[side]);
                }
            }
        }
    }

    #[test]
    fn large_differences_neither_overflow_nor_lose_their_slope() {
        for sums in [[-1.0, -1e5], [-1e5, -1.0]] {
            for kind in KINDS {
                let compared = method(kind).compare(sums, [1.0, 1.0], [0.0; 2]);
                assert!(compared.loss.is_finite(), "{kind:?} {sums:?}");
                assert!(compared.slopes.iter().all(|slope| slope.is_finite()));
            }
        }
        let worse = method(ObjectiveKind::Cpo).compare([-1e5, -1.0], [1.0; 2], [0.0; 2]);
        assert!((worse.slopes[0] + 0.3 * 0.9).abs() < 1e-12);
    }
}
