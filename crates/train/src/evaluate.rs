//! Measures a model on evaluation data.

use crate::{
    Evaluation, StopFlag, TrainError,
    batches::evaluation_packing,
    config::ObjectiveSection,
    objective::{self, Objective, Results, Totals},
};
use tightrope_data::Examples;
use tightrope_model::{Backend, Model};
use tightrope_packing::Packing;

/// Evaluates a model on examples by an objective; they are packed into the
/// model's buffers. No example may be longer than `capacity`, the number of tokens that the model
/// was loaded for. A reference model is the model without its adapter.
pub fn evaluate<'a, D: Backend>(
    section: &ObjectiveSection,
    model: &mut Model<D>,
    examples: impl Into<Examples<'a>>,
    capacity: usize,
) -> Result<Evaluation, TrainError> {
    let examples = examples.into();
    section.check_kind("the evaluation data", examples.are_pairs())?;
    let packing = evaluation_packing(examples, capacity)?;
    let objective = objective::of(section, None);
    let stop = StopFlag::default();
    let evaluation = evaluate_packed(model, &*objective, examples, &packing, &stop)?;
    evaluation.ok_or(TrainError::NothingToEvaluate)
}

/// Returns `None` if `stop` was requested before the end.
pub(crate) fn evaluate_packed<D: Backend>(
    model: &mut Model<D>,
    objective: &dyn Objective<D>,
    examples: Examples<'_>,
    packing: &Packing,
    stop: &StopFlag,
) -> Result<Option<Evaluation>, TrainError> {
    let totals = Totals::of_examples(examples);
    let (mut results, mut trained_tokens, mut tokens) = (Results::default(), 0, 0);
    for index in 0..packing.len() {
        if stop.is_requested() {
            return Ok(None);
        }
        let batch = packing.batch(index, &examples, 0)?;
        results += objective.evaluate(model, &batch, totals)?;
        trained_tokens += batch.trained_tokens() as u64;
        tokens += batch.real_tokens() as u64;
    }
    if trained_tokens == 0 {
        return Err(TrainError::NothingToEvaluate);
    }
    let Results { loss, rewards } = results;
    if !loss.is_finite() {
        let tensor = model.first_not_finite()?;
        return Err(TrainError::EvaluationNotFinite { loss, tensor });
    }
    Ok(Some(Evaluation {
        loss,
        perplexity: rewards.is_none().then(|| loss.exp()),
        rewards,
        tokens,
        trained_tokens,
    }))
}
