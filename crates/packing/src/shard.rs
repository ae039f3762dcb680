//! Dividing the packs over ranks: as many each, and as much work each as possible.

use serde::{Deserialize, Serialize};

use crate::{PackError, Packing, Piece, random::Random};

/// What counts as work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Σ length: matrix products.
    Tokens,
    /// Σ length²: attention.
    #[default]
    Attention,
}

/// Packs by rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// The packs of each rank in order; equally many, and at each step of nearly equal work.
    pub ranks: Vec<Vec<u32>>,
    /// Fewer packs than ranks, drawn by the seed, that have no step to join.
    pub left_over: Vec<u32>,
}

impl Balance {
    fn work(self, pack: &[Piece]) -> u128 {
        let lengths = pack.iter().map(|p| u128::from(p.length));
        match self {
            Self::Tokens => lengths.sum(),
            Self::Attention => lengths.map(|l| l * l).sum(),
        }
    }
}

impl Packing {
    /// Divides the packs over `ranks`, the same for the same seed.
    ///
    /// Packs are sorted by work and cut into steps of one pack a rank, so that no rank waits long
    /// for another; within a step the most work goes to the rank that has had least. The steps are
    /// then shuffled. O(packs · log packs).
    pub fn shard(&self, ranks: u32, balance: Balance, seed: u64) -> Result<Shards, PackError> {
        if ranks == 0 {
            return Err(PackError::Zero { name: "ranks" });
        }
        let ranks = ranks as usize;
        let mut random = Random::new(seed, 3);
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        random.shuffle(&mut order);
        let left_over = order.split_off(order.len() - order.len() % ranks);
        let work = |index: u32| balance.work(self.pack(index as usize));
        order.sort_by_cached_key(|&index| std::cmp::Reverse(work(index)));

        let mut total = vec![0u128; ranks];
        let mut by_total: Vec<usize> = (0..ranks).collect();
        let mut steps: Vec<Vec<u32>> = Vec::with_capacity(order.len() / ranks);
        for packs in order.chunks_exact(ranks) {
            by_total.sort_by_key(|&rank| (total[rank], rank));
            let mut step = vec![0; ranks];
            for (&rank, &pack) in by_total.iter().zip(packs) {
                step[rank] = pack;
                total[rank] += work(pack);
            }
            steps.push(step);
        }
        random.shuffle(&mut steps);
        let of_rank = |rank: usize| steps.iter().map(|step| step[rank]).collect();
        Ok(Shards {
            ranks: (0..ranks).map(of_rank).collect(),
            left_over,
        })
    }
}
