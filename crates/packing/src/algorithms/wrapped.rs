//! Concatenates and cuts: every pack but the last is full, and sequences cross from one to the
//! next.

use crate::{Limits, OrderedPacker, Piece};

/// No token is lost and none is padding, but a sequence may end in another pack than it began in;
/// each part then sees only itself.
pub(crate) struct Wrapped;

impl OrderedPacker for Wrapped {
    fn pack(
        &self,
        pieces: &mut dyn Iterator<Item = Piece>,
        limits: &Limits,
        emit: &mut dyn FnMut(&[Piece]),
    ) {
        let mut pack: Vec<Piece> = Vec::new();
        let mut room = limits.capacity;
        for mut left in pieces {
            while left.length > 0 {
                let length = u64::from(left.length).min(room) as u32;
                pack.push(Piece { length, ..left });
                left.start += length;
                left.length -= length;
                room -= u64::from(length);
                if room == 0 || pack.len() as u64 == limits.sequences {
                    emit(&pack);
                    pack.clear();
                    room = limits.capacity;
                }
            }
        }
        if !pack.is_empty() {
            emit(&pack);
        }
    }
}
