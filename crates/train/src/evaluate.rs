//! Measures loss and perplexity on evaluation data.

use crate::{Evaluation, StopFlag, TrainError, batches::evaluation_packing};
use tightrope_model::{Backend, Model};
use tightrope_packing::{Packing, Sequence};

/// Evaluates a model on sequences, packed into its buffers. No sequence may be longer than
/// `capacity`, the number of tokens that the model was loaded for.
pub fn evaluate<D: Backend>(
    model: &mut Model<D>,
    sequences: &[Sequence],
    capacity: usize,
) -> Result<Evaluation, TrainError> {
    let packing = evaluation_packing(sequences, capacity)?;
    let evaluation = evaluate_packed(model, sequences, &packing, &StopFlag::default())?;
    evaluation.ok_or(TrainError::NothingToEvaluate)
}

/// Returns `None` if `stop` was requested before the end.
pub(crate) fn evaluate_packed<D: Backend>(
    model: &mut Model<D>,
    sequences: &[Sequence],
    packing: &Packing,
    stop: &StopFlag,
) -> Result<Option<Evaluation>, TrainError> {
    let (mut sum, mut trained_tokens, mut tokens) = (0.0, 0, 0);
    for index in 0..packing.len() {
        if stop.is_requested() {
            return Ok(None);
        }
        let batch = packing.batch(index, sequences, 0)?;
        let loss = model.evaluate(&batch)?;
        sum += loss.sum;
        trained_tokens += loss.trained_tokens as u64;
        tokens += batch.real_tokens() as u64;
    }
    if trained_tokens == 0 {
        return Err(TrainError::NothingToEvaluate);
    }
    let loss = sum / trained_tokens as f64;
    if !loss.is_finite() {
        let tensor = model.first_not_finite()?;
        return Err(TrainError::EvaluationNotFinite { loss, tensor });
    }
    Ok(Some(Evaluation {
        loss,
        perplexity: loss.exp(),
        tokens,
        trained_tokens,
    }))
}
