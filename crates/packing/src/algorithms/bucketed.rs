//! Batches of similar lengths: the dynamic-batching baseline.

use crate::{Histogram, HistogramPacker, Limits, PackError, Run, Strategies};

/// Sorts by length, longest first, and makes batches of `limits.sequences` sequences; the last
/// batch, with the shortest sequences, may be smaller.
pub(crate) struct Bucketed;

impl HistogramPacker for Bucketed {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        let mut strategies = Strategies::default();
        let mut batch: Vec<Run> = Vec::new();
        let mut room = limits.sequences;
        for &(length, mut left) in histogram.entries().iter().rev() {
            if room < limits.sequences {
                let repeat = room.min(left);
                batch.push(Run { length, repeat });
                (room, left) = (room - repeat, left - repeat);
                if room > 0 {
                    continue;
                }
                strategies.push(1, batch.drain(..));
                room = limits.sequences;
            }
            let repeat = limits.sequences;
            strategies.push(left / repeat, [Run { length, repeat }]);
            let repeat = left % repeat;
            if repeat > 0 {
                batch.push(Run { length, repeat });
                room -= repeat;
            }
        }
        strategies.push(1, batch);
        Ok(strategies)
    }
}
