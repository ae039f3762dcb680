//! Training objectives. An objective is a file here and a line in [`of`].

mod cross_entropy;

use crate::{Config, TrainError};
use std::fmt::Debug;
use tightrope_model::{Backend, TrainableModel};
use tightrope_packing::Batch;

/// Turns the losses of tokens, which are their negated log-probabilities, into the weight of each
/// token in the gradient, and into the reported loss.
///
/// An objective that depends on the log-probabilities of several parts of a unit uses
/// [`TokenWeights::OfLosses`](tightrope_model::TokenWeights); an objective that needs the
/// log-probabilities of the base model first uses [`Adapters::Off`](tightrope_model::Adapters).
pub(crate) trait Objective<D: Backend>: Debug {
    /// Divisor of the sums over all passes of a step.
    fn denominator(&self, step: &[Batch]) -> f64;

    /// Adds the gradient of a pass, divided by the step's `denominator`, into the gradients. `salt`
    /// differs for each step. Returns the loss of the pass without division.
    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        denominator: f64,
        salt: u64,
    ) -> Result<f64, TrainError>;
}

/// Objective of a configuration.
pub(crate) fn of<D: Backend>(_: &Config) -> Box<dyn Objective<D>> {
    Box::new(cross_entropy::CrossEntropy)
}
