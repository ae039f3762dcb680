//! Batches of a fixed number of sequences in input order: the padded and padding-free baselines.

use crate::{Limits, OrderedPacker, Piece};

/// Makes batches of `limits.sequences` sequences; the last may be smaller.
pub(crate) struct InOrder;

impl OrderedPacker for InOrder {
    fn pack(
        &self,
        pieces: &mut dyn Iterator<Item = Piece>,
        limits: &Limits,
        emit: &mut dyn FnMut(&[Piece]),
    ) {
        let mut batch = Vec::new();
        for piece in pieces {
            batch.push(piece);
            if batch.len() as u64 == limits.sequences {
                emit(&batch);
                batch.clear();
            }
        }
        if !batch.is_empty() {
            emit(&batch);
        }
    }
}
