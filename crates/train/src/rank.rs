//! Divides the passes of a step over the processes that compute it together.

use std::cmp::Reverse;
use tightrope_packing::Batch;

/// One of the processes that compute a step together. Each process knows all passes of the step,
/// and so its divisor, without asking the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    pub index: usize,
    pub count: usize,
}

impl Rank {
    /// The single process of a run on one device.
    pub(crate) const ALONE: Self = Self { index: 0, count: 1 };

    /// Indices of the passes of this rank, in the order of the step; each pass belongs to exactly
    /// one rank. The most costly passes are assigned first, each to the rank with the least cost, so
    /// the costs of two ranks differ by at most one pass. The cost of a token in a model of `hidden`
    /// features is about that of attention to 12 · `hidden` keys.
    pub(crate) fn share(self, passes: &[Batch], hidden: usize) -> Vec<usize> {
        let per_token = 12 * hidden as u128;
        let cost = |&pass: &usize| {
            let pass = &passes[pass];
            pass.len() as u128 * per_token + pass.segments().attention_cost()
        };
        let mut order: Vec<usize> = (0..passes.len()).collect();
        order.sort_by_key(|pass| (Reverse(cost(pass)), *pass));
        let mut costs = vec![0u128; self.count.max(1)];
        let mut own = Vec::new();
        for pass in order {
            let ranks = costs.iter_mut().enumerate();
            let Some((rank, sum)) = ranks.min_by_key(|(rank, sum)| (**sum, *rank)) else {
                continue;
            };
            *sum += cost(&pass);
            if rank == self.index {
                own.push(pass);
            }
        }
        own.sort_unstable();
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_packing::{Piece, Sequence};

    fn passes(lengths: &[u32]) -> Vec<Batch> {
        let pass = |&length: &u32| {
            let tokens = vec![1; length as usize];
            let sequence = Sequence::from_labels(tokens, &vec![1; length as usize]).unwrap();
            let piece = Piece {
                sequence: 0,
                start: 0,
                length,
            };
            Batch::packed(&[sequence], &[piece]).unwrap()
        };
        lengths.iter().map(pass).collect()
    }

    #[test]
    fn ranks_take_each_pass_once_and_differ_by_one_at_most() {
        let lengths = [70, 3, 500, 499, 20, 20, 260, 90, 1, 333];
        let passes = passes(&lengths);
        let cost = |pass: usize| {
            let length = u128::from(lengths[pass]);
            length * 12 * 8 + length * length
        };
        for count in 1..=passes.len() + 1 {
            let shares = (0..count).map(|index| Rank { index, count }.share(&passes, 8));
            let shares: Vec<_> = shares.collect();
            let mut all = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..passes.len()).collect::<Vec<_>>());
            let sums = shares
                .iter()
                .map(|share| share.iter().map(|&p| cost(p)).sum::<u128>());
            let (least, most) = (sums.clone().min().unwrap(), sums.max().unwrap());
            assert!(most - least <= cost(2), "{count}: {shares:?}");
        }
        let alone = Rank::ALONE.share(&passes, 8);
        assert_eq!(alone, (0..passes.len()).collect::<Vec<_>>());
    }
}
