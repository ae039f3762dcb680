//! Whether the head is the embedding: what the configuration says, held against what files hold.

use super::{Checkpoint, Stored, find, to_f32};
use crate::{ModelConfig, ModelError};

/// The head's name.
pub(crate) const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Of a model whose configuration says that the head is the embedding, files may hold the one tensor
/// under the head's name, which then becomes the embedding; or a head that differs, which then is the
/// head and no longer tied. Both as in Transformers.
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

/// Whether the head has the numbers of the embedding.
fn same(checkpoint: &dyn Checkpoint, embedding: &str) -> Result<bool, ModelError> {
    let (Some(a), Some(b)) = (checkpoint.info(embedding), checkpoint.info(HEAD)) else {
        return Ok(false);
    };
    let (Stored::Float(a_type), Stored::Float(b_type)) = (a.stored, b.stored) else {
        return Ok(false);
    };
    if a.shape != b.shape {
        return Ok(false);
    }
    let (a, b) = (checkpoint.read(embedding)?, checkpoint.read(HEAD)?);
    Ok(a == b || a_type != b_type && to_f32(a_type, &a) == to_f32(b_type, &b))
}
