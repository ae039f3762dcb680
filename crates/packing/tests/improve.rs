//! The improving pass and the lower bound are never wrong, and are optimal on the families of the
//! literature.

use std::time::Duration;

use proptest::prelude::*;
use tightrope_packing::{
    Algorithm, Histogram, HistogramPacking, Improved, Limits, Packer, Strategies, improve,
    lower_bound,
};

/// Long enough for any machine: every instance here ends because it is solved.
const BUDGET: Duration = Duration::from_secs(600);

fn best_fit(histogram: &Histogram, capacity: u64, depth: Option<u32>) -> Strategies {
    let packer = Packer {
        depth,
        ..Packer::new(Algorithm::BestFit, capacity)
    };
    packer
        .pack_histogram(histogram)
        .unwrap()
        .strategies
        .unwrap()
}

/// Improves best-fit's packs and checks that nothing is lost and no limit is exceeded.
fn improved(
    histogram: &Histogram,
    capacity: u64,
    depth: Option<u32>,
    budget: Duration,
) -> Improved {
    let limits = Limits::new(capacity, depth, 1).unwrap();
    let start = best_fit(histogram, capacity, depth);
    let improved = improve(histogram, &limits, &start, budget).unwrap();
    assert_eq!(&improved.strategies.histogram().unwrap(), histogram);
    for (_, runs) in improved.strategies.iter() {
        let tokens: u64 = runs
            .iter()
            .map(|run| run.repeat * u64::from(run.length))
            .sum();
        let sequences: u64 = runs.iter().map(|run| run.repeat).sum();
        assert!(tokens <= limits.capacity && sequences <= limits.sequences);
    }
    assert!(improved.strategies.packs() <= start.packs());
    assert!(improved.lower_bound <= improved.strategies.packs());
    improved
}

/// The fewest packs, by trying all: `fewest[set]` = packs, and tokens and sequences in the last.
fn fewest(lengths: &[u32], capacity: u64, depth: u64) -> u64 {
    let sets = 1usize << lengths.len();
    let mut fewest = vec![(u64::MAX, 0, 0); sets];
    fewest[0] = (0, capacity, 0);
    for set in 0..sets {
        let (packs, tokens, sequences) = fewest[set];
        for (index, &length) in lengths.iter().enumerate() {
            if set >> index & 1 == 0 {
                let length = u64::from(length);
                let next = if tokens + length <= capacity && sequences < depth {
                    (packs, tokens + length, sequences + 1)
                } else {
                    (packs + 1, length, 1)
                };
                let with = &mut fewest[set | 1 << index];
                *with = next.min(*with);
            }
        }
    }
    fewest[sets - 1].0
}

proptest! {
    #[test]
    fn the_bound_and_the_packs_enclose_the_optimum(
        lengths in prop::collection::vec(1u32..=30, 1..10),
        capacity in 30u64..80,
    ) {
        let histogram = Histogram::from_lengths(lengths.iter().copied()).unwrap();
        let optimum = fewest(&lengths, capacity, u64::MAX);
        let bound = lower_bound(&histogram, capacity, u64::MAX);
        prop_assert!(bound <= optimum, "{bound} > {optimum}");
        let improved = improved(&histogram, capacity, None, Duration::from_millis(20));
        prop_assert!(improved.lower_bound <= optimum);
        prop_assert!(improved.strategies.packs() >= optimum);
    }

    #[test]
    fn a_depth_limit_is_part_of_the_problem(
        lengths in prop::collection::vec(1u32..=30, 1..8),
        depth in 1u32..4,
    ) {
        let histogram = Histogram::from_lengths(lengths.iter().copied()).unwrap();
        // Order within a pack is free, so that the tokens decide and not the sequences.
        let optimum = fewest_by_partition(&lengths, 40, depth.into());
        let bound = lower_bound(&histogram, 40, depth.into());
        prop_assert!(bound <= optimum);
        let improved = improved(&histogram, 40, Some(depth), Duration::from_millis(20));
        prop_assert!(improved.lower_bound <= optimum);
        prop_assert!(improved.strategies.packs() >= optimum);
    }
}

/// The same with two limits, where the last pack's state has no single best value.
fn fewest_by_partition(lengths: &[u32], capacity: u64, depth: u64) -> u64 {
    fn place(left: &[u32], packs: &mut Vec<(u64, u64)>, limits: (u64, u64), best: &mut u64) {
        let Some((&length, left)) = left.split_first() else {
            *best = (*best).min(packs.len() as u64);
            return;
        };
        let length = u64::from(length);
        for index in 0..packs.len() {
            let (tokens, sequences) = packs[index];
            if tokens + length <= limits.0 && sequences < limits.1 {
                packs[index] = (tokens + length, sequences + 1);
                place(left, packs, limits, best);
                packs[index] = (tokens, sequences);
            }
        }
        packs.push((length, 1));
        place(left, packs, limits, best);
        packs.pop();
    }
    let mut best = u64::MAX;
    place(lengths, &mut Vec::new(), (capacity, depth), &mut best);
    best
}

struct Random(u64);

impl Random {
    fn between(&mut self, least: u32, most: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        least + ((self.0 >> 33) % u64::from(most - least + 1)) as u32
    }
}

/// Falkenauer's uniform family: 20 to 100 in packs of 150.
#[test]
fn uniform_instances_are_solved() {
    let mut saved = 0;
    for seed in 0..4 {
        let mut random = Random(seed);
        let lengths = (0..120).map(|_| random.between(20, 100));
        let histogram = Histogram::from_lengths(lengths).unwrap();
        let improved = improved(&histogram, 150, None, BUDGET);
        assert_eq!(improved.strategies.packs(), improved.lower_bound);
        saved += best_fit(&histogram, 150, None).packs() - improved.lower_bound;
    }
    assert!(saved > 0, "best-fit was optimal everywhere");
}

/// Falkenauer's triplets: three sequences fill each pack exactly, hard for every greedy rule.
#[test]
fn triplets_are_solved() {
    for seed in 0..4 {
        let mut random = Random(seed);
        let mut lengths = Vec::new();
        for _ in 0..20 {
            let large = random.between(380, 490);
            let middle = random.between(250, (1000 - large) / 2);
            lengths.extend([large, middle, 1000 - large - middle]);
        }
        let histogram = Histogram::from_lengths(lengths).unwrap();
        assert!(best_fit(&histogram, 1000, None).packs() > 20);
        assert_eq!(
            improved(&histogram, 1000, None, BUDGET).strategies.packs(),
            20
        );
    }
}

/// 436 packs fewer than best-fit decreasing, and proven to be the fewest.
#[test]
fn squad_is_packed_optimally() {
    let text = include_str!("data/length_histograms.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    let counts = all["squad_1_1"]["counts"].as_array().unwrap();
    let counts: Vec<u64> = counts.iter().map(|c| c.as_u64().unwrap()).collect();
    let histogram = Histogram::from_counts(&counts).unwrap();
    let packer = Packer {
        improve_ms: BUDGET.as_millis() as u64,
        ..Packer::new(Algorithm::BestFit, 384)
    };
    let HistogramPacking {
        packs, lower_bound, ..
    } = packer.pack_histogram(&histogram).unwrap();
    assert_eq!((packs, lower_bound), (40_195, 40_195));
}
