//! Dynamic fine-tuning (Wu et al., 2025): tokens that the model finds likely weigh more.

use super::{CrossEntropy, Objective, Results, Totals};
use crate::TrainError;
use tightrope_model::{Backend, Loss, Model, TokenWeights, TrainableModel};
use tightrope_packing::Batch;

/// `Σ p · l / trained tokens of the step`, with `l` the cross-entropy of a token and `p = exp(−l)`
/// its probability, which has no gradient. Evaluations have the cross-entropy, which other
/// objectives have too.
#[derive(Debug)]
pub(super) struct Dft;

impl<D: Backend> Objective<D> for Dft {
    fn pass(
        &self,
        model: &mut TrainableModel<D>,
        pass: &Batch,
        totals: Totals,
        salt: u64,
    ) -> Result<Results, TrainError> {
        let mut sum = 0.0;
        let mut weigh = |loss: &Loss, weights: &mut [f32]| {
            let tokens = loss.per_token.iter().zip(pass.targets()).zip(weights);
            for ((&loss, &target), weight) in tokens {
                let loss = f64::from(loss);
                let probability = if target >= 0 { (-loss).exp() } else { 0.0 };
                sum += probability * loss;
                *weight = (probability / totals.trained_tokens) as f32;
            }
        };
        model.forward_backward(pass, TokenWeights::OfLosses(&mut weigh), salt)?;
        Ok(Results {
            loss: sum / totals.trained_tokens,
            ..Results::default()
        })
    }

    fn evaluate(
        &self,
        model: &mut Model<D>,
        batch: &Batch,
        totals: [Totals; 2],
    ) -> Result<[Results; 2], TrainError> {
        CrossEntropy.evaluate(model, batch, totals)
    }
}
