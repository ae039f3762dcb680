//! Cross-entropy of the next token, with the same weight for each trained token of a step.

use super::Objective;
use crate::TrainError;
use tightrope_model::{Backend, TokenWeights, TrainableModel};
use tightrope_packing::Batch;

/// `Σ losses / trained tokens of the step`, for any packing and any division into passes.
#[derive(Debug)]
pub(super) struct CrossEntropy;

impl<D: Backend> Objective<D> for CrossEntropy {
    /// Number of trained tokens. A step of cut pieces may have none.
    fn denominator(&self, step: &[Batch]) -> f64 {
        let trained: usize = step.iter().map(Batch::trained_tokens).sum();
        trained.max(1) as f64
    }

    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        denominator: f64,
        salt: u64,
    ) -> Result<f64, TrainError> {
        let weights = vec![(1.0 / denominator) as f32; pass.len()];
        let loss = model.forward_backward(pass, TokenWeights::Known(&weights), salt)?;
        Ok(loss.sum)
    }
}
