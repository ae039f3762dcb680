//! What a model is trained for. An objective is a file here and a line in [`of`].

mod cross_entropy;

use crate::{Config, TrainError};
use std::fmt::Debug;
use tightrope_model::{Backend, TrainableModel};
use tightrope_packing::Batch;

/// Turns the losses of tokens, which are their log-probabilities with the other sign, into what each
/// of them weighs in the gradient, and into the loss that is reported.
///
/// What depends on the log-probabilities of several parts of a unit asks the model for
/// [`TokenWeights::OfLosses`](tightrope_model::TokenWeights); what needs those of the model before it
/// was tuned, for [`Adapters::Off`](tightrope_model::Adapters) before.
pub(crate) trait Objective<D: Backend>: Debug {
    /// What the sums over all passes of a step are divided by.
    fn denominator(&self, step: &[Batch]) -> f64;

    /// Adds the gradient of a pass, divided by the step's `denominator`, into the gradients. `salt`
    /// differs for each step. Returns the loss of the pass, which is not divided.
    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        denominator: f64,
        salt: u64,
    ) -> Result<f64, TrainError>;
}

/// The objective of a configuration.
pub(crate) fn of<D: Backend>(_: &Config) -> Box<dyn Objective<D>> {
    Box::new(cross_entropy::CrossEntropy)
}
