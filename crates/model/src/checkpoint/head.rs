//! Decides whether the head is the embedding, by comparing the configuration with the files.

use super::{Checkpoint, Stored, TensorInfo, find};
use crate::{ModelConfig, ModelError};

/// Name of the head's tensor.
pub(crate) const HEAD: &str = "lm_head.weight";
/// Name of the tensor of a head that scores sequences.
pub(crate) const SCORE: &str = "score.weight";
/// Name of the embedding's tensor.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// If the configuration ties the head to the embedding, files may hold the shared tensor under the
/// head's name, which then becomes the embedding; or they may hold a different head, which is then
/// used and no longer tied. Both are as in Transformers.
pub(crate) fn settle(
    config: &mut ModelConfig,
    checkpoint: &mut dyn Checkpoint,
) -> Result<(), ModelError> {
    if !config.architecture().tied_head || checkpoint.info(HEAD).is_none() {
        return Ok(());
    }
    match find(checkpoint, EMBEDDING) {
        None => checkpoint.rename(HEAD, EMBEDDING),
        Some(embedding) if same(checkpoint, embedding)? => {}
        Some(_) => config.untie(),
    }
    Ok(())
}

/// Whether the head has the values of the embedding.
fn same(checkpoint: &dyn Checkpoint, embedding: &str) -> Result<bool, ModelError> {
    let (Some(a), Some(b)) = (checkpoint.info(embedding), checkpoint.info(HEAD)) else {
        return Ok(false);
    };
    let is_float = |info: &TensorInfo| matches!(info.stored, Stored::Float(_));
    if a.shape != b.shape || !is_float(&a) || !is_float(&b) {
        return Ok(false);
    }
    let (a, b) = (checkpoint.read(embedding)?, checkpoint.read(HEAD)?);
    Ok(a == b || a.0 != b.0 && a.0.to_f32(&a.1) == b.0.to_f32(&b.1))
}
