//! Best-fit over a bounded window of open packs, for data that does not fit in memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Limits, OrderedPacker, Piece};

/// Best-fit in input order with at most `limits.window` open packs.
pub(crate) struct Streaming;

impl OrderedPacker for Streaming {
    fn pack(
        &self,
        pieces: &mut dyn Iterator<Item = Piece>,
        limits: &Limits,
        emit: &mut dyn FnMut(&[Piece]),
    ) {
        let mut stream = Stream::open(*limits);
        for piece in pieces {
            if let Some(pack) = stream.place(piece) {
                emit(&pack);
            }
        }
        for pack in stream.finish() {
            emit(&pack);
        }
    }
}

/// Takes sequences one by one and returns finished packs one by one; it holds at most a window of
/// packs.
///
/// A sequence enters the fullest open pack that has room, the oldest among equal ones. If none has
/// room, a new pack is opened, and the fullest one leaves if the window is full. The state can be
/// serialized between any two sequences and continues as if it had never been stopped.
///
/// ```
/// use tightrope_packing::{Piece, Stream};
/// let mut stream = Stream::new(10, None, 2)?;
/// let piece = |sequence, length| Piece { sequence, start: 0, length };
/// assert_eq!(stream.push(piece(0, 6))?, None);
/// assert_eq!(stream.push(piece(1, 7))?, None);
/// let state = serde_json::to_string(&stream).unwrap();
/// let mut stream: Stream = serde_json::from_str(&state).unwrap();
/// assert_eq!(stream.push(piece(2, 3))?, Some(vec![piece(1, 7), piece(2, 3)]));
/// assert_eq!(stream.finish().count(), 1);
/// # Ok::<(), tightrope_packing::StreamError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "State", into = "State")]
pub struct Stream {
    limits: Limits,
    /// Packs by room left, then by age.
    open: BTreeMap<(u64, u64), Vec<Piece>>,
    opened: u64,
}

/// An unfinished pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPack {
    /// Number of packs opened before this one.
    pub age: u64,
    /// Contents of the pack.
    pub pieces: Vec<Piece>,
}

/// Reasons why a stream cannot take its input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The limits have no meaning.
    #[error(transparent)]
    Limits(#[from] crate::PackError),
    /// The length is 0 or exceeds the capacity.
    #[error("sequence {sequence} has {length} tokens, not between 1 and {capacity}")]
    Length {
        /// Index of the sequence.
        sequence: u32,
        /// Length of the sequence.
        length: u32,
        /// Capacity of a pack.
        capacity: u64,
    },
    /// A stored state that no stream can have.
    #[error("stored pack of age {age} does not fit the limits of the stored stream")]
    State {
        /// Age of the pack.
        age: u64,
    },
}

impl Stream {
    /// A stream of packs with `capacity` tokens and at most `depth` sequences, `window` of them
    /// open.
    pub fn new(capacity: u64, depth: Option<u32>, window: usize) -> Result<Self, StreamError> {
        Ok(Self::open(Limits::new(capacity, depth, window)?))
    }

    fn open(limits: Limits) -> Self {
        Self {
            limits,
            open: BTreeMap::new(),
            opened: 0,
        }
    }

    /// Takes a sequence; returns the pack that is finished by it, if there is one.
    pub fn push(&mut self, piece: Piece) -> Result<Option<Vec<Piece>>, StreamError> {
        let capacity = self.limits.capacity;
        if piece.length == 0 || u64::from(piece.length) > capacity {
            return Err(StreamError::Length {
                sequence: piece.sequence,
                length: piece.length,
                capacity,
            });
        }
        Ok(self.place(piece))
    }

    fn place(&mut self, piece: Piece) -> Option<Vec<Piece>> {
        let tokens = u64::from(piece.length);
        let found = self.open.range((tokens, 0)..).next().map(|(&key, _)| key);
        let ((room, age), mut pack) = match found.and_then(|key| self.open.remove_entry(&key)) {
            Some(entry) => entry,
            None => {
                self.opened += 1;
                ((self.limits.capacity, self.opened - 1), Vec::new())
            }
        };
        pack.push(piece);
        let room = room - tokens;
        if room == 0 || pack.len() as u64 == self.limits.sequences {
            return Some(pack);
        }
        let full = self.open.len() == self.limits.window;
        let fullest = if full { self.open.pop_first() } else { None };
        self.open.insert((room, age), pack);
        fullest.map(|(_, pack)| pack)
    }

    /// Number of open packs.
    pub fn open_packs(&self) -> usize {
        self.open.len()
    }

    /// Returns the remaining packs, oldest first.
    pub fn finish(self) -> impl ExactSizeIterator<Item = Vec<Piece>> {
        let mut packs: Vec<_> = self.open.into_iter().collect();
        packs.sort_unstable_by_key(|((_, age), _)| *age);
        packs.into_iter().map(|(_, pack)| pack)
    }
}

/// A [`Stream`] as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    capacity: u64,
    depth: Option<u32>,
    window: usize,
    opened: u64,
    open: Vec<OpenPack>,
}

impl From<Stream> for State {
    fn from(stream: Stream) -> Self {
        let open = stream.open.into_iter();
        Self {
            capacity: stream.limits.capacity,
            depth: u32::try_from(stream.limits.sequences).ok(),
            window: stream.limits.window,
            opened: stream.opened,
            open: open
                .map(|((_, age), pieces)| OpenPack { age, pieces })
                .collect(),
        }
    }
}

impl TryFrom<State> for Stream {
    type Error = StreamError;

    fn try_from(state: State) -> Result<Self, StreamError> {
        let mut stream = Self::new(state.capacity, state.depth, state.window)?;
        stream.opened = state.opened;
        let mut ages = std::collections::BTreeSet::new();
        for OpenPack { age, pieces } in state.open {
            let tokens: u64 = pieces.iter().map(|p| u64::from(p.length)).sum();
            let possible = !pieces.is_empty()
                && pieces.iter().all(|p| p.length > 0)
                && tokens < stream.limits.capacity
                && (pieces.len() as u64) < stream.limits.sequences
                && stream.open.len() < stream.limits.window
                && age < stream.opened
                && ages.insert(age);
            if !possible {
                return Err(StreamError::State { age });
            }
            let room = stream.limits.capacity - tokens;
            stream.open.insert((room, age), pieces);
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_cannot_be_is_refused() {
        let load = |state: &str| serde_json::from_str::<Stream>(state).map_err(|e| e.to_string());
        let state = |capacity, window, opened, open| {
            load(&format!(
                r#"{{"capacity":{capacity},"depth":null,"window":{window},"opened":{opened},"open":{open}}}"#
            ))
        };
        let pack = r#"[{"age":0,"pieces":[[0,0,5]]}]"#;
        assert!(state(9, 1, 1, pack).is_ok());
        assert!(state(5, 1, 1, pack).unwrap_err().contains("age 0"));
        assert!(state(9, 1, 0, pack).unwrap_err().contains("age 0"));
        assert!(state(9, 0, 1, pack).unwrap_err().contains("window"));
        assert!(state(0, 1, 1, pack).unwrap_err().contains("capacity 0"));
        assert!(state(9, 1, 1, r#"[{"age":0,"pieces":[]}]"#).is_err());
        assert!(state(9, 1, 1, r#"[{"age":0,"pieces":[[0,0,0]]}]"#).is_err());
    }

    #[test]
    fn lengths_are_checked() {
        let piece = |length| Piece {
            sequence: 3,
            start: 0,
            length,
        };
        let mut stream = Stream::new(4, Some(2), 1).unwrap();
        for length in [0, 5] {
            let expected = StreamError::Length {
                sequence: 3,
                length,
                capacity: 4,
            };
            assert_eq!(stream.push(piece(length)), Err(expected));
        }
        assert_eq!(stream.push(piece(4)), Ok(Some(vec![piece(4)])));
    }
}
