//! Cross-entropy of the next token, with the same weight for each trained token of a step.

use super::{Objective, Results, Totals};
use crate::TrainError;
use tightrope_model::{Backend, Loss, Model, TokenWeights, TrainableModel};
use tightrope_packing::Batch;

/// `Σ losses / trained tokens of the step`, for any packing and any division into passes.
#[derive(Debug)]
pub(super) struct CrossEntropy;

fn results(loss: &Loss, totals: Totals) -> Results {
    Results {
        loss: loss.sum / totals.trained_tokens,
        ..Results::default()
    }
}

impl<D: Backend> Objective<D> for CrossEntropy {
    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        totals: Totals,
        salt: u64,
    ) -> Result<Results, TrainError> {
        let weights = vec![(1.0 / totals.trained_tokens) as f32; pass.len()];
        let loss = model.forward_backward(pass, TokenWeights::Known(&weights), salt)?;
        Ok(results(&loss, totals))
    }

    fn evaluate(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        totals: [Totals; 2],
    ) -> Result<[Results; 2], TrainError> {
        let loss = model.evaluate(batch)?;
        Ok(totals.map(|totals| results(&loss, totals)))
    }
}
