//! Sharding: equal numbers of packs, equal work, every pack once, the same for the same seed.

use proptest::prelude::*;
use tightrope_packing::{Algorithm, Balance, PackError, Packer, Piece};

fn work(balance: Balance, pack: &[Piece]) -> u64 {
    let lengths = pack.iter().map(|p| u64::from(p.length));
    match balance {
        Balance::Tokens => lengths.sum(),
        Balance::Attention => lengths.map(|l| l * l).sum(),
    }
}

proptest! {
    #[test]
    fn packs_are_divided_evenly(
        lengths in prop::collection::vec(1u32..=100, 0..300),
        ranks in 1u32..9,
        seed in any::<u64>(),
        balance in prop::sample::select(&[Balance::Tokens, Balance::Attention]),
    ) {
        let packing = Packer::new(Algorithm::BestFit, 100).pack(&lengths).unwrap();
        let shards = packing.shard(ranks, balance, seed).unwrap();
        prop_assert_eq!(&shards, &packing.shard(ranks, balance, seed).unwrap());
        let steps = packing.len() / ranks as usize;
        prop_assert!(shards.ranks.iter().all(|packs| packs.len() == steps));
        let mut all: Vec<u32> = shards.ranks.iter().flatten().copied().collect();
        all.extend(&shards.left_over);
        all.sort_unstable();
        prop_assert_eq!(all, (0..packing.len() as u32).collect::<Vec<_>>());

        // The steps, slices of the sorted packs, differ together by at most the largest pack; the
        // most work going to the rank that had least, totals differ by at most the widest step.
        let of = |&pack: &u32| work(balance, packing.pack(pack as usize));
        let spread = |works: Vec<u64>| works.iter().max().unwrap() - works.iter().min().unwrap();
        let step = |step: usize| spread(shards.ranks.iter().map(|r| of(&r[step])).collect());
        let largest = shards.ranks.iter().flatten().map(of).max().unwrap_or(0);
        prop_assert!((0..steps).map(step).sum::<u64>() <= largest);
        let widest = (0..steps).map(step).max().unwrap_or(0);
        let totals: Vec<u64> = shards.ranks.iter().map(|r| r.iter().map(of).sum()).collect();
        prop_assert!(spread(totals.clone()) <= widest, "{totals:?}");
    }
}

#[test]
fn no_ranks_is_an_error() {
    let packing = Packer::new(Algorithm::BestFit, 10).pack(&[1]).unwrap();
    let shards = packing.shard(0, Balance::Tokens, 0);
    assert_eq!(shards, Err(PackError::Zero { name: "ranks" }));
    let shards = packing.shard(2, Balance::Tokens, 0).unwrap();
    assert_eq!(shards.left_over, [0]);
}
