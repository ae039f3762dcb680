//! Training objectives. An objective is a file here and a line in [`of`].

mod cross_entropy;
mod dft;
pub(crate) mod kto;
mod preference;
mod reward;
mod rewards;
mod weighed;

pub(crate) use preference::reference;
pub use rewards::Rewards;
pub use weighed::Weighed;

use crate::{Config, TrainError, config::ObjectiveKind};
use cross_entropy::CrossEntropy;
use std::{fmt::Debug, ops::AddAssign, sync::Arc};
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
    /// Learns what the passes of a step, or an evaluation, have in common; `members` are the
    /// examples in them, in ascending order.
    fn begin(
        &mut self,
        _model: &mut Model<D>,
        _examples: Examples<'_>,
        _members: &[usize],
        _set: Set,
    ) -> Result<(), TrainError> {
        Ok(())
    }

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

/// Examples that are trained, or evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    Train,
    Eval,
}

/// Log-probabilities of the reference model for each example: sums over both answers of a pair, or
/// over a labelled answer and its mismatched one.
#[derive(Clone, Debug, Default)]
pub(crate) struct References {
    pub train: Vec<[f64; 2]>,
    pub eval: Vec<[f64; 2]>,
}

impl References {
    fn of(&self, set: Set) -> &[[f64; 2]] {
        match set {
            Set::Train => &self.train,
            Set::Eval => &self.eval,
        }
    }
}

/// Examples of the passes of a step, in ascending order.
pub(crate) fn members(step: &[Batch]) -> Vec<usize> {
    let segments = step.iter().flat_map(|pass| pass.segments().as_slice());
    let mut members: Vec<usize> = segments.filter_map(|segment| segment.sequence).collect();
    members.sort_unstable();
    members.dedup();
    members
}

/// `ln σ(x)`, without overflow.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    log_sigmoid(x).exp()
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
    /// Labelled answers that are good; known for evaluations.
    pub good: f64,
    /// Labelled answers that are bad; known for evaluations.
    pub bad: f64,
}

impl Totals {
    /// Place of each sequence in its example, its length, and the number of its trained tokens.
    fn new(sequences: impl Iterator<Item = (usize, usize, usize)>) -> Self {
        let mut totals = Self::default();
        for (place, length, trained) in sequences {
            totals.trained_tokens += trained as f64;
            match place {
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
            ..totals
        }
    }

    /// Sizes of the passes of a step.
    pub(crate) fn of(step: &[Batch]) -> Self {
        Self::new(step.iter().flat_map(|pass| {
            pass.segments().sequences().map(|sequence| {
                // No token of a shared beginning is trained.
                let targets = &pass.targets()[sequence.own.tokens()];
                let trained = targets.iter().filter(|target| **target >= 0).count();
                (sequence.place, sequence.length(), trained)
            })
        }))
    }

    /// Sizes of all examples that are to be counted.
    pub(crate) fn of_examples(examples: Examples<'_>, counts: impl Fn(usize) -> bool) -> Self {
        let counted = || (0..examples.count()).filter(|&example| counts(example));
        let all = examples.sequences();
        let totals = Self::new(counted().flat_map(|example| {
            let members = examples.members(example).enumerate();
            members.map(|(place, index)| (place, all.length(index), all.trained_tokens(index)))
        }));
        let [mut good, mut bad] = [0.0; 2];
        for example in counted().take(examples.desirable().len()) {
            // Answers without a token to train are left out.
            if examples
                .members(example)
                .any(|index| all.trained_tokens(index) > 0)
            {
                match examples.desirable()[example] {
                    true => good += 1.0,
                    false => bad += 1.0,
                }
            }
        }
        Self {
            good,
            bad,
            ..totals
        }
    }
}

/// Results of a step or an evaluation, or the part of a pass in them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Results {
    /// The loss.
    pub loss: f64,
    /// Rewards of answers, if they are compared or judged.
    pub rewards: Rewards,
}

impl AddAssign for Results {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.rewards = self.rewards.plus(other.rewards);
    }
}

/// Objective of a configuration; `references` has the log-probabilities of the reference model,
/// unless it is the model without its adapter.
pub(crate) fn of<D: Backend>(
    config: &Config,
    references: Option<Arc<References>>,
) -> Box<dyn Objective<D>> {
    let section = &config.objective;
    match section.kind {
        ObjectiveKind::CrossEntropy => Box::new(CrossEntropy),
        ObjectiveKind::Dft => Box::new(dft::Dft),
        ObjectiveKind::Kto => {
            let max_length = config.data.max_length;
            Box::new(kto::Kto::new(section, max_length, references))
        }
        ObjectiveKind::Reward => Box::new(reward::Reward::new(section)),
        ObjectiveKind::Dpo
        | ObjectiveKind::Ipo
        | ObjectiveKind::Simpo
        | ObjectiveKind::Cpo
        | ObjectiveKind::Orpo => Box::new(preference::Preference::new(section, references)),
    }
}
