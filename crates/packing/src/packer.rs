//! Packs lengths or a histogram: the entry point of the crate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, CutCounts, Histogram, HistogramPacker, Implementation, Improved, Layout, Limits,
    MAX_CAPACITY, Overlong, PackError, Packing, Piece, Strategies,
    assign::assign,
    bound::lower_bound,
    improve,
    overlong::{Pieces, check_cuts},
    packing::Storage,
    random::{Random, Stream},
};

/// Settings of a packing.
///
/// ```
/// use tightrope_packing::{Algorithm, Packer};
/// let packer = Packer { seed: Some(1), ..Packer::new(Algorithm::BestFit, 8) };
/// let packing = packer.pack(&[5, 3, 6, 2, 8])?;
/// assert_eq!((packing.len(), packing.efficiency()), (3, 1.0));
/// # Ok::<(), tightrope_packing::PackError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packer {
    /// Algorithm that puts sequences together.
    pub algorithm: Algorithm,
    /// Number of tokens in a pack, `1..=2³²`; in the batched modes the largest length of a
    /// sequence.
    pub capacity: u64,
    /// Largest number of sequences in a pack; `None` = the algorithm's default, mostly unlimited.
    #[serde(default)]
    pub depth: Option<u32>,
    /// Number of sequences in a batch of `padding-free`, `padded` and `bucketed`.
    #[serde(default = "default_batch_size")]
    pub batch_size: u32,
    /// Number of packs that `streaming` keeps open.
    #[serde(default = "default_window")]
    pub window: usize,
    /// Milliseconds to look for fewer packs than the algorithm finds ([`improve`](crate::improve));
    /// the packs then depend on the machine's speed. It has no effect on batches and on algorithms
    /// that take the sequences in their order.
    #[serde(default)]
    pub improve_ms: u64,
    /// Treatment of sequences longer than the capacity.
    #[serde(default)]
    pub overlong: Overlong,
    /// Shuffles the packs, and the places of equally long sequences; `None` = no shuffling.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn default_batch_size() -> u32 {
    8
}
fn default_window() -> usize {
    1024
}

/// Result of packing a histogram: numbers, and the packs if the histogram determines them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramPacking {
    /// Number of packs (or batches).
    pub packs: u64,
    /// Number of tokens in the packs.
    pub tokens: u64,
    /// Number of tokens that the model would compute, padding included.
    pub computed_tokens: u128,
    /// No algorithm needs fewer packs.
    pub lower_bound: u64,
    /// Numbers of sequences that are not packed in full.
    pub cuts: CutCounts,
    /// The packs, if they do not depend on the order of the sequences.
    pub strategies: Option<Strategies>,
}

impl HistogramPacking {
    /// Real tokens as a share of computed ones; 1 if there are none.
    pub fn efficiency(&self) -> f64 {
        share(self.tokens.into(), self.computed_tokens)
    }
}

pub(crate) fn share(part: u128, whole: u128) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

impl Limits {
    /// Checks the limits.
    pub fn new(capacity: u64, depth: Option<u32>, window: usize) -> Result<Self, PackError> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(PackError::Capacity { capacity });
        }
        if depth == Some(0) {
            return Err(PackError::Zero { name: "depth" });
        }
        if window == 0 {
            return Err(PackError::Zero { name: "window" });
        }
        Ok(Self {
            capacity,
            sequences: depth.map_or(u64::MAX, u64::from),
            window,
        })
    }
}

impl Packer {
    /// A packer with the defaults: no limit on sequences, overlong ones truncated, nothing
    /// shuffled.
    pub fn new(algorithm: Algorithm, capacity: u64) -> Self {
        Self {
            algorithm,
            capacity,
            depth: None,
            batch_size: default_batch_size(),
            window: default_window(),
            improve_ms: 0,
            overlong: Overlong::default(),
            seed: None,
        }
    }

    /// Limit on sequences per pack in force; `None` = unlimited.
    pub fn effective_depth(&self) -> Option<u32> {
        match self.algorithm.layout() {
            Layout::Packed => self.depth.or(self.algorithm.default_depth()),
            Layout::PaddingFree | Layout::Padded => Some(self.batch_size),
        }
    }

    fn limits(&self) -> Result<Limits, PackError> {
        if self.batch_size == 0 {
            return Err(PackError::Zero { name: "batch_size" });
        }
        Limits::new(self.capacity, self.effective_depth(), self.window)
    }

    /// Whether packs are full, wherever sequences end.
    fn cuts_anywhere(&self) -> bool {
        self.algorithm.cuts_sequences() && self.depth.is_none()
    }

    /// Longest piece that the algorithm gets.
    pub(crate) fn longest(&self) -> u64 {
        if self.algorithm.cuts_sequences() {
            MAX_CAPACITY
        } else {
            self.capacity
        }
    }

    /// Packs sequences by their lengths: each is in exactly one pack in full, or in
    /// [`Packing::cuts`]. O(sequences + cost of packing the histogram).
    pub fn pack(&self, lengths: &[u32]) -> Result<Packing, PackError> {
        let limits = self.limits()?;
        let mut pieces = Pieces::new(lengths, self.longest(), self.overlong)?;
        let layout = self.algorithm.layout();
        let (storage, cuts, improved) = match self.algorithm.implementation() {
            Implementation::Histogram(packer) => {
                let improved = self.pack_and_improve(packer, &pieces.histogram, &limits)?;
                let storage = assign(&pieces, &improved.strategies, self.seed)?;
                (storage, pieces.cuts, improved.lower_bound)
            }
            Implementation::Ordered(packer) => {
                if self.algorithm.cuts_sequences() {
                    check_cuts(pieces.histogram.tokens() / self.capacity)?;
                }
                let mut storage = Storage::default();
                let mut cuts = std::mem::take(&mut pieces.cuts);
                packer.pack(&mut pieces.in_order(), &limits, &mut |pack| {
                    storage.push(pack)
                });
                if self.algorithm.cuts_sequences() {
                    // Every cut adds a piece, so this does not overflow if the pieces fit.
                    cuts.split = storage.cut_sequences(lengths);
                }
                storage.check()?;
                if let Some(seed) = self.seed {
                    storage.shuffle(&mut Random::stream(seed, Stream::Packs));
                }
                (storage, cuts, 0)
            }
        };
        let bound = self.lower_bound(&pieces.histogram).max(improved);
        Ok(Packing::from_parts(
            layout,
            self.capacity,
            bound,
            storage,
            cuts,
        ))
    }

    /// Packs a histogram. Algorithms that depend on the order of the sequences get them in an order
    /// shuffled by the seed, at a cost of O(sequences). The memory does not depend on the lengths.
    pub fn pack_histogram(&self, histogram: &Histogram) -> Result<HistogramPacking, PackError> {
        let limits = self.limits()?;
        let (histogram, cuts) = histogram.fit(self.longest(), self.overlong)?;
        let mut cost = Cost::new(self.algorithm.layout(), limits.capacity);
        let mut bound = 0;
        let strategies = match self.algorithm.implementation() {
            Implementation::Histogram(packer) => {
                let improved = self.pack_and_improve(packer, &histogram, &limits)?;
                let strategies = improved.strategies;
                bound = improved.lower_bound;
                for (count, runs) in strategies.iter() {
                    let lengths = runs.iter().map(|run| (run.length, run.repeat));
                    cost.add(count, lengths);
                }
                Some(strategies)
            }
            // Every pack but the last is full, whatever the order.
            Implementation::Ordered(_) if self.cuts_anywhere() => {
                let packs = histogram.tokens().div_ceil(limits.capacity);
                cost.add(packs, std::iter::empty());
                None
            }
            Implementation::Ordered(packer) => {
                if self.algorithm.cuts_sequences() {
                    check_cuts(histogram.tokens() / limits.capacity)?;
                }
                let order = shuffled(&histogram, self.algorithm, self.seed.unwrap_or(0))?;
                let mut pieces = order.into_iter().map(|length| Piece {
                    sequence: 0,
                    start: 0,
                    length,
                });
                packer.pack(&mut pieces, &limits, &mut |pack| {
                    cost.add(1, pack.iter().map(|piece| (piece.length, 1)));
                });
                None
            }
        };
        Ok(HistogramPacking {
            packs: cost.packs,
            tokens: histogram.tokens(),
            computed_tokens: cost.computed,
            lower_bound: self.lower_bound(&histogram).max(bound),
            cuts,
            strategies,
        })
    }

    fn pack_and_improve(
        &self,
        packer: &dyn HistogramPacker,
        histogram: &Histogram,
        limits: &Limits,
    ) -> Result<Improved, PackError> {
        let strategies = packer.pack(histogram, limits)?;
        if self.improve_ms == 0 || self.algorithm.layout() != Layout::Packed {
            let lower_bound = 0;
            return Ok(Improved {
                strategies,
                lower_bound,
            });
        }
        let budget = Duration::from_millis(self.improve_ms);
        improve(histogram, limits, &strategies, budget)
    }

    /// Lower bound under the rules of the algorithm, for lengths that fit.
    pub(crate) fn lower_bound(&self, histogram: &Histogram) -> u64 {
        let depth = self.effective_depth().map_or(u64::MAX, u64::from);
        let by_depth = histogram.sequences().div_ceil(depth);
        if self.algorithm.layout() != Layout::Packed {
            by_depth
        } else if self.algorithm.cuts_sequences() {
            by_depth.max(histogram.tokens().div_ceil(self.capacity))
        } else {
            lower_bound(histogram, self.capacity, depth)
        }
    }
}

/// Adds up the costs of packs.
struct Cost {
    layout: Layout,
    capacity: u64,
    packs: u64,
    computed: u128,
}

impl Cost {
    fn new(layout: Layout, capacity: u64) -> Self {
        Self {
            layout,
            capacity,
            packs: 0,
            computed: 0,
        }
    }

    fn add(&mut self, count: u64, lengths: impl Iterator<Item = (u32, u64)>) {
        self.packs += count;
        self.computed += u128::from(count) * computed_tokens(self.layout, self.capacity, lengths);
    }
}

/// Number of tokens that the model computes for a pack of `(length, how often)`.
pub(crate) fn computed_tokens(
    layout: Layout,
    capacity: u64,
    lengths: impl Iterator<Item = (u32, u64)>,
) -> u128 {
    match layout {
        Layout::Packed => capacity.into(),
        Layout::PaddingFree => lengths.map(|(l, n)| u128::from(l) * u128::from(n)).sum(),
        Layout::Padded => {
            let (longest, rows) =
                lengths.fold((0, 0), |(longest, rows), (l, n)| (longest.max(l), rows + n));
            u128::from(longest) * u128::from(rows)
        }
    }
}

/// Largest histogram that is expanded sequence by sequence: 1 GiB of lengths.
const MAX_SPELLED: u64 = 1 << 28;

fn shuffled(histogram: &Histogram, algorithm: Algorithm, seed: u64) -> Result<Vec<u32>, PackError> {
    let sequences = histogram.sequences();
    if sequences > MAX_SPELLED {
        return Err(PackError::TooManySequences {
            algorithm: algorithm.name(),
            sequences,
        });
    }
    let mut lengths = Vec::with_capacity(sequences as usize);
    for &(length, count) in histogram.entries() {
        lengths.extend(std::iter::repeat_n(length, count as usize));
    }
    Random::stream(seed, Stream::Histogram).shuffle(&mut lengths);
    Ok(lengths)
}
