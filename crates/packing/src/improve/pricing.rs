//! The most valuable pack for given values of the lengths: an unbounded knapsack.

use crate::{Limits, Run};

/// Number of steps of the largest table that is worth filling thousands of times.
const EFFORT: u64 = 1 << 26;

/// Numbers that can be added as values.
pub(super) trait Value: Copy + PartialOrd + std::ops::Add<Output = Self> + Default {}
impl Value for f64 {}
impl Value for u64 {}

/// Packs of at most `capacity` tokens and `layers` sequences.
pub(super) struct Knapsack {
    capacity: usize,
    /// Limit on sequences; `None` if the capacity alone limits them.
    layers: Option<usize>,
}

impl Knapsack {
    /// A knapsack for ascending `lengths`; `None` if the table would be too large.
    pub(super) fn new(lengths: &[u32], limits: &Limits) -> Option<Self> {
        let shortest = u64::from(*lengths.first()?);
        let limited = limits.sequences < limits.capacity / shortest;
        let layers = if limited { limits.sequences } else { 1 };
        let effort = limits.capacity.checked_mul(lengths.len() as u64)?;
        let effort = effort.checked_mul(layers)?;
        (effort <= EFFORT).then_some(Self {
            capacity: limits.capacity as usize,
            layers: limited.then_some(layers as usize),
        })
    }

    /// Returns the largest sum of values of any pack, and such a pack.
    pub(super) fn best<V: Value>(&self, lengths: &[u32], values: &[V]) -> (V, Vec<Run>) {
        let items: Vec<(usize, V)> = lengths
            .iter()
            .zip(values)
            .filter(|(_, value)| **value > V::default())
            .map(|(&length, &value)| (length as usize, value))
            .collect();
        match self.layers {
            None => self.unlimited(&items),
            Some(layers) => self.limited(&items, layers),
        }
    }

    fn unlimited<V: Value>(&self, items: &[(usize, V)]) -> (V, Vec<Run>) {
        let mut best = vec![V::default(); self.capacity + 1];
        let mut last = vec![0u32; self.capacity + 1];
        for &(length, value) in items {
            for tokens in length..=self.capacity {
                let with = best[tokens - length] + value;
                if with > best[tokens] {
                    best[tokens] = with;
                    last[tokens] = length as u32;
                }
            }
        }
        let mut tokens = self.capacity;
        let lengths = std::iter::from_fn(|| {
            let length = last[tokens];
            tokens -= length as usize;
            (length > 0).then_some(length)
        });
        (best[self.capacity], runs(lengths.collect()))
    }

    fn limited<V: Value>(&self, items: &[(usize, V)], layers: usize) -> (V, Vec<Run>) {
        let width = self.capacity + 1;
        let mut below = vec![V::default(); width];
        let mut last = vec![0u32; width * layers];
        for layer in 0..layers {
            let mut best = below.clone();
            let last = &mut last[layer * width..][..width];
            for &(length, value) in items {
                for tokens in length..=self.capacity {
                    let with = below[tokens - length] + value;
                    if with > best[tokens] {
                        best[tokens] = with;
                        last[tokens] = length as u32;
                    }
                }
            }
            below = best;
        }
        let mut tokens = self.capacity;
        let lengths = (0..layers).rev().map(|layer| {
            let length = last[layer * width + tokens];
            tokens -= length as usize;
            length
        });
        let lengths = lengths.filter(|&length| length > 0).collect();
        (below[self.capacity], runs(lengths))
    }
}

fn runs(mut lengths: Vec<u32>) -> Vec<Run> {
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let equal = lengths.chunk_by(|a, b| a == b);
    equal
        .map(|run| Run {
            length: run[0],
            repeat: run.len() as u64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_pack_is_worth_more(
            items in prop::collection::btree_map(1u32..12, 0u64..50, 1..4),
            capacity in 12u64..40,
            depth in 1u64..5,
        ) {
            let lengths: Vec<u32> = items.keys().copied().collect();
            let values: Vec<u64> = items.values().copied().collect();
            for sequences in [depth, u64::MAX] {
                let limits = Limits { capacity, sequences, window: 1 };
                let knapsack = Knapsack::new(&lengths, &limits).unwrap();
                let (best, pack) = knapsack.best(&lengths, &values);
                let count: u64 = pack.iter().map(|run| run.repeat).sum();
                let tokens: u64 = pack.iter().map(|run| run.repeat * u64::from(run.length)).sum();
                let worth: u64 = pack.iter().map(|run| run.repeat * items[&run.length]).sum();
                prop_assert!(count <= sequences && tokens <= capacity);
                prop_assert_eq!(worth, best);
                let mut most = 0;
                every_pack(&lengths, &values, capacity, sequences, 0, &mut most);
                prop_assert_eq!(best, most);
            }
        }
    }

    fn every_pack(l: &[u32], v: &[u64], tokens: u64, sequences: u64, worth: u64, most: &mut u64) {
        *most = worth.max(*most);
        for (i, &length) in l.iter().enumerate() {
            if sequences > 0 && u64::from(length) <= tokens {
                let (tokens, worth) = (tokens - u64::from(length), worth + v[i]);
                every_pack(&l[i..], &v[i..], tokens, sequences - 1, worth, most);
            }
        }
    }
}
