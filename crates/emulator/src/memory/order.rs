//! Ordering of host operations (copies, launches).

const SEQUENCE_BITS: u32 = 24;
const SEQUENCE_MASK: u32 = (1 << SEQUENCE_BITS) - 1;
/// Largest number of streams that can be distinguished; see [`Order`].
pub(crate) const MOST_STREAMS: usize = 1 << (32 - SEQUENCE_BITS);
/// Largest number of operations of one stream that can be distinguished.
pub(crate) const MOST_OPERATIONS: u32 = SEQUENCE_MASK;

/// One operation of a stream, and the operations of every stream that are ordered before it, as a
/// vector clock. The number of an operation consists of its stream (8 bits) and its index in that
/// stream (24 bits, from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub(crate) operation: u32,
    /// For each stream, the last operation that is known to be finished before this one begins.
    pub(crate) finished: Vec<u32>,
}

impl Order {
    /// An order for callers that launch in sequence and use no streams: nothing came before that
    /// this operation would have to wait for. `sequence` counts from 1.
    pub fn sequential(sequence: u32) -> Self {
        let sequence = sequence.clamp(1, MOST_OPERATIONS);
        Self {
            operation: sequence,
            finished: vec![sequence - 1],
        }
    }

    pub(crate) fn new(stream: usize, sequence: u32, finished: Vec<u32>) -> Self {
        Self {
            operation: (stream as u32) << SEQUENCE_BITS | sequence,
            finished,
        }
    }

    /// Whether `operation` is finished before this one begins.
    pub(crate) fn is_after(&self, operation: u32) -> bool {
        let stream = (operation >> SEQUENCE_BITS) as usize;
        self.finished
            .get(stream)
            .is_some_and(|last| operation & SEQUENCE_MASK <= *last)
    }

    /// Whether every operation counted by `clock` is finished before this one begins.
    pub(crate) fn is_after_all(&self, clock: &[u32]) -> bool {
        clock.iter().enumerate().all(|(stream, last)| {
            *last == 0 || self.is_after((stream as u32) << SEQUENCE_BITS | last)
        })
    }

    pub(crate) fn stream_of(operation: u32) -> usize {
        (operation >> SEQUENCE_BITS) as usize
    }

    pub(crate) fn sequence_of(operation: u32) -> u32 {
        operation & SEQUENCE_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_one_stream_follow_each_other() {
        let third = Order::sequential(3);
        assert!(third.is_after(2) && third.is_after(1));
        assert!(!third.is_after(3));
    }

    #[test]
    fn operations_of_another_stream_need_an_event() {
        let first = Order::new(1, 5, vec![0, 4]);
        let unaware = Order::new(0, 9, vec![8, 4]);
        let waiting = Order::new(0, 9, vec![8, 5]);
        assert!(!unaware.is_after(first.operation));
        assert!(waiting.is_after(first.operation));
        assert!(waiting.is_after_all(&[8, 5]));
        assert!(!unaware.is_after_all(&[0, 5]));
        assert!(unaware.is_after_all(&[0, 0, 0]));
    }
}
