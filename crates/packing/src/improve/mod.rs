//! Finds fewer packs than best-fit decreasing where that is not optimal, and proves a lower bound.

mod master;
mod pricing;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    Histogram, HistogramPacker, Limits, PackError, Run, Strategies,
    algorithms::BestFit,
    bound::lower_bound,
    random::{Random, Stream},
};
use master::{Relaxation, relax};
use pricing::Knapsack;

/// Packs with a lower bound on their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Improved {
    /// The packs; never more than before.
    pub strategies: Strategies,
    /// No packing has fewer packs: the packing is optimal if it has this many.
    pub lower_bound: u64,
}

/// Looks for a packing of `histogram` with fewer packs than `start` until one is proved optimal or
/// `budget` is over.
///
/// Column generation solves the linear relaxation; its dual values, rounded to integers and checked
/// by an exact knapsack, give the lower bound. Whole uses of packs are kept, and the rest is
/// relaxed again after rounding up the packs that are nearly whole (a dive). At each stage best-fit
/// also closes the remainder. Dives are repeated with random choices while time is left. Histograms
/// of more than 2,500 distinct lengths, or whose knapsack would take long, only get their lower
/// bound.
///
/// The result depends on the speed of the machine: store it if it must be reproducible.
pub fn improve(
    histogram: &Histogram,
    limits: &Limits,
    start: &Strategies,
    budget: Duration,
) -> Result<Improved, PackError> {
    let deadline = Instant::now() + budget;
    let bound = lower_bound(histogram, limits.capacity, limits.sequences);
    let mut search = Search {
        limits,
        deadline,
        pool: start.iter().map(|(_, runs)| runs.to_vec()).collect(),
        best: start.clone(),
        bound,
        random: Random::stream(0, Stream::Search),
    };
    if !search.done() {
        search.run(histogram)?;
    }
    Ok(Improved {
        strategies: search.best,
        lower_bound: search.bound,
    })
}

struct Search<'a> {
    limits: &'a Limits,
    deadline: Instant,
    pool: Vec<Vec<Run>>,
    best: Strategies,
    bound: u64,
    random: Random,
}

/// Packs chosen so far and the sequences that are not in them.
#[derive(Clone)]
struct Partial {
    chosen: Vec<(u64, Vec<Run>)>,
    packs: u64,
    left: BTreeMap<u32, u64>,
}

impl Search<'_> {
    fn done(&self) -> bool {
        self.best.packs() <= self.bound || Instant::now() >= self.deadline
    }

    fn run(&mut self, histogram: &Histogram) -> Result<(), PackError> {
        let Some(first) = relax(histogram, self.limits, &mut self.pool, self.deadline) else {
            return Ok(());
        };
        self.bound = self
            .bound
            .max(dual_bound(histogram, self.limits, &first.values));
        for attempt in 0.. {
            let mut root = Partial {
                chosen: Vec::new(),
                packs: 0,
                left: histogram.entries().iter().copied().collect(),
            };
            // Later attempts keep less of the relaxation.
            let slack = if attempt == 0 {
                0
            } else {
                self.random.below(3)
            } as f64;
            root.choose(&first, |x| (x + 1e-6 - slack).floor().max(0.0));
            self.dive(root, attempt)?;
            if self.done() {
                break;
            }
        }
        Ok(())
    }

    /// Chooses packs until none are left or the result cannot become the best.
    fn dive(&mut self, mut partial: Partial, attempt: u64) -> Result<(), PackError> {
        loop {
            let rest = Histogram::from_pairs(partial.left.iter().map(|(&l, &n)| (l, n)))?;
            let closed = BestFit.pack(&rest, self.limits)?;
            if partial.packs + closed.packs() < self.best.packs() {
                self.best = partial.with(&closed);
            }
            if rest.is_empty() || self.done() {
                return Ok(());
            }
            let relaxed = relax(&rest, self.limits, &mut self.pool, self.deadline);
            let Some(relaxed) = relaxed else {
                return Ok(());
            };
            let fewest = dual_bound(&rest, self.limits, &relaxed.values);
            if partial.packs + fewest >= self.best.packs() {
                return Ok(());
            }
            if partial.choose(&relaxed, |x| (x + 1e-6).floor()) {
                continue;
            }
            // No use is whole: round up the uses that are nearly whole, and then the largest; later
            // attempts draw packs in proportion to their uses.
            let first = attempt == 0;
            if first && partial.choose(&relaxed, |x| f64::from(x >= 0.9)) {
                continue;
            }
            let weight = |random: &mut Random, x: f64| {
                if first {
                    x
                } else {
                    random.fraction().powf(1.0 / x)
                }
            };
            let weighed = relaxed.uses.iter();
            let weighed = weighed.map(|(pack, x)| (pack, weight(&mut self.random, *x)));
            let Some((pack, _)) = weighed.reduce(|a, b| if b.1 > a.1 { b } else { a }) else {
                return Ok(());
            };
            let pack = pack.clone();
            partial.take(&pack, 1);
        }
    }
}

impl Partial {
    /// Uses each pack as often as `round` says, as far as there are sequences for it.
    fn choose(&mut self, relaxed: &Relaxation, round: impl Fn(f64) -> f64) -> bool {
        let before = self.packs;
        for (pack, x) in &relaxed.uses {
            let uses = round(*x) as u64;
            let fits = |run: &Run| self.left.get(&run.length).map_or(0, |n| n / run.repeat);
            let most = pack.iter().map(fits).min().unwrap_or(0);
            self.take(pack, uses.min(most));
        }
        self.packs > before
    }

    /// Removes the sequences of a pack that are left, `uses` times.
    fn take(&mut self, pack: &[Run], uses: u64) {
        if uses == 0 {
            return;
        }
        let mut taken = Vec::with_capacity(pack.len());
        for run in pack {
            let Some(left) = self.left.get_mut(&run.length) else {
                continue;
            };
            let repeat = run.repeat.min(*left / uses);
            *left -= repeat * uses;
            if *left == 0 {
                self.left.remove(&run.length);
            }
            let length = run.length;
            if repeat > 0 {
                taken.push(Run { length, repeat });
            }
        }
        self.packs += uses;
        self.chosen.push((uses, taken));
    }

    fn with(&self, rest: &Strategies) -> Strategies {
        let mut all = rest.clone();
        for (count, runs) in &self.chosen {
            all.push(*count, runs.iter().copied());
        }
        all
    }
}

/// `⌈Σ count·value / most valuable pack⌉`, in integers: valid whatever the values are.
fn dual_bound(histogram: &Histogram, limits: &Limits, values: &[f64]) -> u64 {
    let lengths: Vec<u32> = histogram.entries().iter().map(|e| e.0).collect();
    let Some(knapsack) = Knapsack::new(&lengths, limits) else {
        return 0;
    };
    // Values are at most about 1 and packs hold fewer than 2²⁶ sequences: sums fit 64 bits.
    let scale = (1u64 << 36) as f64;
    let integers: Vec<u64> = values
        .iter()
        .map(|v| (v.clamp(0.0, 2.0) * scale) as u64)
        .collect();
    let (most, _) = knapsack.best(&lengths, &integers);
    let counts = histogram.entries().iter().map(|e| u128::from(e.1));
    let worth: u128 = counts.zip(&integers).map(|(n, &v)| n * u128::from(v)).sum();
    if most == 0 {
        return 0;
    }
    worth.div_ceil(u128::from(most)) as u64
}
