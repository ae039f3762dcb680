//! KTO (Ethayarajh et al., 2024): single answers that are good or bad.
//!
//! With `l` the sum of an answer's log-probabilities and `r` the same of the reference model, the
//! loss of an answer is `λ_D·(1 − σ(β·(l − r − z)))` if it is good and `λ_U·(1 − σ(β·(z − l + r)))`
//! if it is bad; a step's loss is the mean over its answers. `z` estimates the divergence of the
//! model from the reference, and has no gradient: the mean of `l − r` over the step's prompts, each
//! with the answer of the example before it in the data (the first with that of the last), at
//! least 0.

use super::{Objective, References, Results, Rewards, Set, Totals, preference::sides, sigmoid};
use crate::{TrainError, config::ObjectiveSection};
use std::{collections::BTreeMap, sync::Arc};
use tightrope_data::{DataError, Examples, Progress, Sequences};
use tightrope_model::{Adapters, Backend, Loss, Model, TokenWeights, TrainableModel};
use tightrope_packing::{Algorithm, Batch, Packer, Packing, Sequence, Units};
use tightrope_report::numbers::counted;

/// Trains or measures labelled answers.
#[derive(Debug)]
pub(super) struct Kto {
    beta: f64,
    desirable_weight: f64,
    undesirable_weight: f64,
    max_length: usize,
    /// `None`: the reference is the model without its adapter.
    references: Option<Arc<References>>,
    begun: Begun,
}

/// What the answers of a step, or of an evaluation, have in common.
#[derive(Debug, Default)]
struct Begun {
    /// Whether each example is good.
    desirable: BTreeMap<usize, bool>,
    good: f64,
    bad: f64,
    /// `z`
    divergence: f64,
}

/// The example before this one that has an answer; itself if there is no other.
fn before(all: &Sequences, example: usize) -> usize {
    let mut before = (1..all.len()).map(|back| (example + all.len() - back) % all.len());
    let answered = before.find(|&index| all.trained_tokens(index) > 0);
    answered.unwrap_or(example)
}

/// Number of tokens before the second one of the answer, which is the first that has no target.
fn prompt(all: &Sequences, example: usize) -> usize {
    let first = all.untrained_beginning(example);
    (first + 1).min(all.length(example))
}

/// The prompt of an example with the answer of the one before it that has one.
fn mismatched(
    examples: Examples<'_>,
    example: usize,
    max_length: usize,
) -> Result<Sequence, DataError> {
    let all = examples.sequences();
    let other = before(all, example);
    let (prompt, answer) = (prompt(all, example), prompt(all, other));
    let (own, other) = (all.get(example)?, all.get(other)?);
    let tokens = [&own.tokens()[..prompt], &other.tokens()[answer..]].concat();
    let mut labels = vec![i64::from(tightrope_packing::IGNORED); prompt];
    labels.extend(other.targets()[answer - 1..].iter().map(|&t| i64::from(t)));
    labels.truncate(tokens.len());
    // Targets are ids or ignored, as labels are.
    let mut sequence = Sequence::from_labels(tokens, &labels).unwrap_or(own);
    sequence.truncate(max_length);
    Ok(sequence)
}

/// Number of tokens of the longest prompt with another's answer.
pub(crate) fn longest(examples: Examples<'_>, max_length: usize) -> usize {
    let all = examples.sequences();
    let lengths = (0..examples.count()).map(|example| {
        let other = before(all, example);
        prompt(all, example) + all.length(other) - prompt(all, other)
    });
    lengths.max().unwrap_or(0).min(max_length)
}

/// Sums of log-probabilities of sequences, in their order.
fn sums<D: Backend>(
    model: &mut Model<D>,
    sequences: &[Sequence],
    adapters: Adapters,
) -> Result<Vec<f64>, TrainError> {
    let packer = Packer::new(Algorithm::BestFit, model.capacity() as u64);
    let lengths = Units::lengths(sequences);
    let packing = packer.pack(&lengths)?;
    let mut all = vec![0.0; sequences.len()];
    for index in 0..packing.len() {
        let batch = packing.batch(index, sequences, 0)?;
        let loss = model.evaluate_with(&batch, adapters)?;
        for side in sides(&batch, &loss.per_token) {
            all[side.place.0] = side.sum;
        }
    }
    Ok(all)
}

/// Sums of log-probabilities of each packed example and of its prompt with another's answer.
pub(crate) fn reference<D: Backend>(
    model: &mut Model<D>,
    examples: Examples<'_>,
    packings: &[&Packing],
    max_length: usize,
    progress: &dyn Progress,
) -> Result<Vec<[f64; 2]>, TrainError> {
    let mut all = super::reference(model, examples, packings, progress)?;
    let packs: usize = packings.iter().map(|packing| packing.len()).sum();
    progress.start(
        "computing the reference of other answers",
        Some(packs as u64),
    );
    for pack in packings.iter().flat_map(|packing| packing.iter()) {
        let members = pack.iter().map(|piece| piece.sequence as usize);
        let others = members
            .clone()
            .map(|index| mismatched(examples, index, max_length));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let others = sums(model, &others, Adapters::On)?;
        for (index, sum) in members.zip(others) {
            all[index][1] = sum;
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(all)
}

/// Says that good and bad answers are out of balance, with the weight that balances them.
pub(crate) fn imbalance(section: &ObjectiveSection, examples: Examples<'_>) -> Option<String> {
    // Answers without a token to train are left out.
    let all = examples.desirable().iter().enumerate();
    let trained = all.filter(|(index, _)| examples.sequences().trained_tokens(*index) > 0);
    let (good, bad) = trained.fold((0, 0), |(good, bad), (_, is_good)| match is_good {
        true => (good + 1, bad),
        false => (good, bad + 1),
    });
    let weights = (section.desirable_weight?, section.undesirable_weight?);
    if weights.0 == 0.0 || weights.1 == 0.0 {
        return None;
    }
    if good == 0 || bad == 0 {
        let only = if bad == 0 { "good" } else { "bad" };
        return Some(format!(
            "all {} are {only}: nothing tells the model what the others would be",
            counted(good + bad, "trained answer")
        ));
    }
    let ratio = weights.0 * good as f64 / (weights.1 * bad as f64);
    // Equation 8 of the paper.
    let most = 4.0 / 3.0;
    (!(1.0..=most).contains(&ratio)).then(|| {
        let (key, weight) = match ratio > most {
            true => ("undesirable_weight", weights.1 * ratio),
            false => ("desirable_weight", weights.0 / ratio),
        };
        format!(
            "{good} good and {}: with their weights {} to 1, and the authors of KTO advise between \
             1 and 1.33 to 1: objective.{key} = {}",
            counted(bad, "bad answer"),
            short(ratio),
            short(weight),
        )
    })
}

/// A few digits of a number.
fn short(number: f64) -> String {
    match (0.01..1e4).contains(&number) {
        true => format!("{number:.2}"),
        false => format!("{number:.1e}"),
    }
}

impl Kto {
    pub(super) fn new(
        section: &ObjectiveSection,
        max_length: usize,
        references: Option<Arc<References>>,
    ) -> Self {
        Self {
            beta: section.beta.unwrap_or_default(),
            desirable_weight: section.desirable_weight.unwrap_or_default(),
            undesirable_weight: section.undesirable_weight.unwrap_or_default(),
            max_length,
            references,
            begun: Begun::default(),
        }
    }

    /// Loss of an answer whose log-probability is `ratio` above that of the reference, and its
    /// derivative.
    fn judge(&self, ratio: f64, desirable: bool) -> (f64, f64) {
        let (weight, sign) = match desirable {
            true => (self.desirable_weight, 1.0),
            false => (self.undesirable_weight, -1.0),
        };
        // 1 − σ(x) = σ(−x)
        let x = sign * self.beta * (ratio - self.begun.divergence);
        let loss = weight * sigmoid(-x);
        (loss, -sign * self.beta * loss * sigmoid(x))
    }

    /// Log-probabilities of the reference model for the answers of a batch, in their order.
    fn reference<D: Backend>(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        set: Set,
    ) -> Result<Vec<f64>, TrainError> {
        let stored = self.references.as_ref().map(|all| all.of(set));
        let Some(stored) = stored else {
            let loss = model.evaluate_with(batch, Adapters::Off)?;
            let sides = sides(batch, &loss.per_token);
            return Ok(sides.into_iter().map(|side| side.sum).collect());
        };
        let segments = batch.segments().as_slice().iter();
        let examples = segments.filter_map(|segment| segment.sequence);
        Ok(examples.map(|example| stored[example][0]).collect())
    }

    /// Results of a batch; writes the weights of the tokens if they are wanted.
    fn results(
        &self,
        batch: &Batch,
        losses: &Loss,
        reference: &[f64],
        [good, bad]: [f64; 2],
        mut weights: Option<&mut [f32]>,
    ) -> Results {
        let answers = good + bad;
        let mut results = Results::default();
        for (side, reference) in sides(batch, &losses.per_token).iter().zip(reference) {
            let desirable = self.begun.desirable.get(&side.place.0);
            let desirable = desirable.copied().unwrap_or_default();
            let ratio = side.sum - reference;
            let (loss, slope) = self.judge(ratio, desirable);
            let reward = self.beta * ratio;
            let (of, sign) = if desirable { (good, 1.0) } else { (bad, -1.0) };
            let mean = Some(reward / of);
            results += Results {
                loss: loss / answers,
                rewards: Rewards {
                    rewards_chosen: mean.filter(|_| desirable),
                    rewards_rejected: mean.filter(|_| !desirable),
                    rewards_margin: mean.map(|mean| sign * mean).filter(|_| good * bad > 0.0),
                    rewards_accuracy: None,
                    kl: Some(self.begun.divergence / answers),
                },
            };
            let Some(weights) = weights.as_deref_mut() else {
                continue;
            };
            let targets = batch.targets()[side.range.clone()].iter();
            for (weight, target) in weights[side.range.clone()].iter_mut().zip(targets) {
                // A loss is a log-probability with the other sign.
                *weight = match *target >= 0 {
                    true => (-slope / answers) as f32,
                    false => 0.0,
                };
            }
        }
        results
    }
}

impl<D: Backend> Objective<D> for Kto {
    fn begin(
        &mut self,
        model: &mut Model<D>,
        examples: Examples<'_>,
        members: &[usize],
        set: Set,
    ) -> Result<(), TrainError> {
        let desirable = members
            .iter()
            .map(|&index| (index, examples.desirable()[index]));
        let desirable: BTreeMap<_, _> = desirable.collect();
        let good = desirable.values().filter(|good| **good).count() as f64;
        let others = members.iter();
        let others = others.map(|&index| mismatched(examples, index, self.max_length));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let policy = sums(model, &others, Adapters::On)?;
        let reference = match &self.references {
            Some(references) => {
                let stored = references.of(set);
                members.iter().map(|&index| stored[index][1]).collect()
            }
            None => sums(model, &others, Adapters::Off)?,
        };
        let ratios = policy.iter().zip(&reference);
        let sum: f64 = ratios.map(|(policy, reference)| policy - reference).sum();
        self.begun = Begun {
            good,
            bad: members.len() as f64 - good,
            divergence: (sum / members.len().max(1) as f64).max(0.0),
            desirable,
        };
        Ok(())
    }

    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        _: Totals,
        salt: u64,
    ) -> Result<Results, TrainError> {
        let reference = self.reference(model, pass, Set::Train)?;
        let counts = [self.begun.good, self.begun.bad];
        let mut results = Results::default();
        let mut weigh = |loss: &Loss, weights: &mut [f32]| {
            results = self.results(pass, loss, &reference, counts, Some(weights));
        };
        model.forward_backward(pass, TokenWeights::OfLosses(&mut weigh), salt)?;
        Ok(results)
    }

    fn evaluate(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        totals: [Totals; 2],
    ) -> Result<[Results; 2], TrainError> {
        let reference = self.reference(model, batch, Set::Eval)?;
        let loss = model.evaluate(batch)?;
        Ok(totals.map(|totals| {
            let counts = [totals.good, totals.bad];
            self.results(batch, &loss, &reference, counts, None)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(prompt: &[u32], answer: &[u32]) -> Sequence {
        let mut labels = vec![-100; prompt.len()];
        labels.extend(answer.iter().map(|&id| i64::from(id)));
        Sequence::from_labels([prompt, answer].concat(), &labels).unwrap()
    }

    #[test]
    fn each_prompt_gets_the_answer_before_it() {
        let all = [
            sequence(&[1, 2], &[3]),
            sequence(&[4], &[5, 6]),
            sequence(&[7, 8], &[]),
            sequence(&[9], &[10, 11]),
        ];
        let all: Sequences = all.into_iter().collect();
        let examples = Examples::from(&all);
        let of = |index| mismatched(examples, index, 9).unwrap();
        assert_eq!(of(0), sequence(&[1, 2], &[10, 11]));
        assert_eq!(of(1), sequence(&[4], &[3]));
        // An example without an answer is passed over.
        assert_eq!(of(3), sequence(&[9], &[5, 6]));
        assert_eq!(mismatched(examples, 0, 3).unwrap(), {
            let mut cut = sequence(&[1, 2], &[10, 11]);
            cut.truncate(3);
            cut
        });
        assert_eq!(longest(examples, 9), 4);
        // Template text behind an answer stays without a target.
        let tail = Sequence::from_labels(vec![1, 2, 3, 4], &[-100, 2, 3, -100]).unwrap();
        let all = [tail, sequence(&[5], &[6])];
        let expected = Sequence::from_labels(vec![5, 2, 3, 4], &[-100, 2, 3, -100]).unwrap();
        let all: Sequences = all.into_iter().collect();
        let found = mismatched(Examples::from(&all), 1, 9);
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn slopes_are_the_derivatives() {
        let kto = Kto {
            beta: 0.3,
            desirable_weight: 1.5,
            undesirable_weight: 0.7,
            max_length: 8,
            references: None,
            begun: Begun {
                divergence: 0.4,
                ..Begun::default()
            },
        };
        for ratio in [-3.0, 0.4, 5.0] {
            for desirable in [false, true] {
                let at = |ratio| kto.judge(ratio, desirable).0;
                let expected = (at(ratio + 1e-5) - at(ratio - 1e-5)) / 2e-5;
                let (loss, slope) = kto.judge(ratio, desirable);
                assert!((slope - expected).abs() < 1e-9, "{slope} {expected}");
                let x = 0.3 * (ratio - 0.4) * if desirable { 1.0 } else { -1.0 };
                let weight = if desirable { 1.5 } else { 0.7 };
                assert!((loss - weight * (1.0 - 1.0 / (1.0 + f64::exp(-x)))).abs() < 1e-12);
            }
        }
        let far = kto.judge(1e6, true);
        assert!(far.0 == 0.0 && far.1.abs() == 0.0);
    }
}
