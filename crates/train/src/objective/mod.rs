//! Training objectives. An objective is a file here and a line in [`of`].

mod cross_entropy;
mod preference;

pub use preference::Rewards;
pub(crate) use preference::{References, reference};

use crate::{TrainError, config::ObjectiveSection};
use std::{fmt::Debug, ops::AddAssign};
use tightrope_data::Examples;
use tightrope_model::{Backend, Model, TrainableModel};
use tightrope_packing::{Batch, Units};

/// Turns the losses of tokens, which are their negated log-probabilities, into the weight of each
/// token in the gradient, and into what is reported.
///
/// An objective that depends on the log-probabilities of several parts of a unit uses
/// [`TokenWeights::OfLosses`](tightrope_model::TokenWeights); an objective that needs the
/// log-probabilities of the base model first uses [`Adapters::Off`](tightrope_model::Adapters).
pub(crate) trait Objective<D: Backend>: Debug {
    /// Adds the gradient of a pass into the gradients, and returns its part of the step's results.
    /// `salt` differs for each step.
    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        totals: Totals,
        salt: u64,
    ) -> Result<Results, TrainError>;

    /// Returns the part of a batch in the results of an evaluation, for each of the totals.
    fn evaluate(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        totals: [Totals; 2],
    ) -> Result<[Results; 2], TrainError>;
}

/// Sizes of all passes of a step, or of all evaluation data, by which sums are divided; at least 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    /// Tokens with a target.
    pub trained_tokens: f64,
    /// Pairs of answers.
    pub pairs: f64,
    /// Tokens with a target in the better answers.
    pub chosen_tokens: f64,
    /// Tokens with another one behind them, in the better answers and their prompts.
    pub chosen_steps: f64,
}

impl Totals {
    fn new(sequences: impl Iterator<Item = (usize, usize, usize)>) -> Self {
        let mut totals = Self::default();
        for (part, length, trained) in sequences {
            totals.trained_tokens += trained as f64;
            match part {
                0 => {
                    totals.chosen_tokens += trained as f64;
                    totals.chosen_steps += length.saturating_sub(1) as f64;
                }
                _ => totals.pairs += 1.0,
            }
        }
        // A step of cut pieces may have nothing to train.
        Self {
            trained_tokens: totals.trained_tokens.max(1.0),
            pairs: totals.pairs.max(1.0),
            chosen_tokens: totals.chosen_tokens.max(1.0),
            chosen_steps: totals.chosen_steps.max(1.0),
        }
    }

    /// Sizes of the passes of a step.
    pub(crate) fn of(step: &[Batch]) -> Self {
        Self::new(step.iter().flat_map(|pass| {
            let segments = pass.segments().as_slice().iter();
            segments.filter(|s| s.sequence.is_some()).map(|segment| {
                let targets = &pass.targets()[segment.start..][..segment.length];
                let trained = targets.iter().filter(|target| **target >= 0).count();
                (segment.part, segment.length, trained)
            })
        }))
    }

    /// Sizes of all examples that are to be counted.
    pub(crate) fn of_examples(examples: Examples<'_>, counts: impl Fn(usize) -> bool) -> Self {
        let counted = (0..examples.count()).filter(|&example| counts(example));
        Self::new(counted.flat_map(|example| {
            let parts = examples.of(example).iter().enumerate();
            parts.map(|(part, sequence)| (part, sequence.len(), sequence.trained_tokens()))
        }))
    }
}

/// Results of a step or an evaluation, or the part of a pass in them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Results {
    /// The loss.
    pub loss: f64,
    /// Rewards of the answers, if answers are compared.
    pub rewards: Option<Rewards>,
}

impl AddAssign for Results {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.rewards = match (self.rewards, other.rewards) {
            (Some(own), Some(other)) => Some(own.plus(other)),
            (own, other) => own.or(other),
        };
    }
}

/// Objective of a configuration; `references` has the log-probabilities of the reference model,
/// unless it is the model without its adapter.
pub(crate) fn of<D: Backend>(
    section: &ObjectiveSection,
    references: Option<References>,
) -> Box<dyn Objective<D>> {
    match preference::Method::of(section) {
        None => Box::new(cross_entropy::CrossEntropy),
        Some(method) => Box::new(preference::Preference::new(method, references)),
    }
}
