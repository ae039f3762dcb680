//! Finds sequences that make a loss or gradient infinite or not a number.

use crate::{
    Prepared, TrainError, gradient_norm,
    objective::{Objective, Totals, members},
};
use tightrope_model::{Backend, TrainableModel};
use tightrope_packing::{Batch, Piece, Units};

/// Tries the sequences of a step one by one; overwrites the gradients. Returns the origins of the
/// sequences that fail alone, or of all sequences if they fail only together.
pub(crate) fn culprits<D: Backend>(
    model: &mut TrainableModel<D>,
    objective: &dyn Objective<D>,
    passes: &[Batch],
    salt: u64,
    prepared: &Prepared<'_>,
) -> Result<Vec<String>, TrainError> {
    let sequences = members(passes);
    let mut found = Vec::new();
    for &sequence in &sequences {
        let examples = prepared.batches.examples();
        let parts = examples.parts(sequence)?;
        let length: usize = parts.iter().map(|part| part.sequence.len()).sum();
        let piece = Piece {
            sequence: sequence as u32,
            start: 0,
            // Cut sequences may be longer than the buffers; as much of them is tried as fits.
            length: length.min(prepared.capacity()) as u32,
        };
        let batch = Batch::packed(&examples, &[piece])?;
        let batch = [batch];
        model.zero_gradients()?;
        let results = objective.pass(model, &batch[0], Totals::of(&batch), salt)?;
        if !results.loss.is_finite() || !gradient_norm(model)?.is_finite() {
            found.extend(prepared.origins(sequence));
        }
    }
    if found.is_empty() {
        let all = sequences.into_iter();
        found = all.flat_map(|s| prepared.origins(s)).collect();
    }
    Ok(found)
}
