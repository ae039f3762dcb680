//! Cost of padding: the alternatives that packing is compared with.

use crate::Histogram;

/// Cost of batches of `batch_size` sequences, each padded to its longest.
///
/// The predicted speed-up of packing is `Σ_batch rows·max / Σ length`. If half of the sequences
/// have length L and half have length S, it is 2L/(L+S) for large batches, up to 2; with 20 % long
/// sequences it is L/(0.2·L + 0.8·S), up to 5.
///
/// ```
/// use tightrope_packing::{Histogram, Padding};
/// let (long, short) = (1000, 10);
/// let half = Histogram::from_pairs([(long, 50_000), (short, 50_000)])?;
/// let speed_up = Padding::expected(&half, 64).speed_up();
/// assert!((speed_up - 2.0 * 1000.0 / (1000.0 + 10.0)).abs() < 1e-9);
/// let fifth = Histogram::from_pairs([(long, 20_000), (short, 80_000)])?;
/// let speed_up = Padding::expected(&fifth, 64).speed_up();
/// assert!((speed_up - 1000.0 / (0.2 * 1000.0 + 0.8 * 10.0)).abs() < 1e-5);
/// # Ok::<(), tightrope_packing::PackError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Padding {
    /// Number of tokens of sequences.
    pub tokens: u64,
    /// Number of tokens of sequences and padding.
    pub computed_tokens: f64,
}

impl Padding {
    /// Cost of batches in the order of `lengths`.
    pub fn in_order(lengths: impl IntoIterator<Item = u32>, batch_size: u32) -> Self {
        let (mut tokens, mut computed, mut rows, mut longest) = (0u64, 0u128, 0u32, 0u32);
        for length in lengths {
            tokens += u64::from(length);
            longest = longest.max(length);
            rows += 1;
            if rows == batch_size {
                computed += u128::from(rows) * u128::from(longest);
                (rows, longest) = (0, 0);
            }
        }
        computed += u128::from(rows) * u128::from(longest);
        Self {
            tokens,
            computed_tokens: computed as f64,
        }
    }

    /// Mean cost over all orders of the sequences.
    ///
    /// `P(max ≤ l) = Π_{i<n} (N(l) − i)/(N − i)` for a batch of `n` of `N` sequences, of which
    /// `N(l)` are no longer than `l`. O(distinct lengths · min(batch size, 1024)).
    pub fn expected(histogram: &Histogram, batch_size: u32) -> Self {
        let total = histogram.sequences();
        let rows = u64::from(batch_size.max(1));
        let batches = |count: u64, rows: u64| match count {
            0 => 0.0,
            _ => count as f64 * rows as f64 * expected_longest(histogram, rows),
        };
        Self {
            tokens: histogram.tokens(),
            computed_tokens: batches(total / rows, rows) + batches(1, total % rows),
        }
    }

    /// Cost of batches of neighbours after sorting by length, as the `bucketed` algorithm makes
    /// them.
    pub fn bucketed(histogram: &Histogram, batch_size: u32) -> Self {
        let rows = u64::from(batch_size.max(1));
        let mut computed = 0u128;
        // Places left in the batch that an earlier length began.
        let mut open = 0u64;
        let mut longest = 0u32;
        for &(length, count) in histogram.entries().iter().rev() {
            let joins = open.min(count);
            computed += u128::from(joins) * u128::from(longest);
            let begins = count - joins;
            computed += u128::from(begins) * u128::from(length);
            open -= joins;
            if begins > 0 {
                longest = length;
                open = (rows - begins % rows) % rows;
            }
        }
        Self {
            tokens: histogram.tokens(),
            computed_tokens: computed as f64,
        }
    }

    /// Padding as a share of computed tokens; 0 if there are none.
    pub fn share(&self) -> f64 {
        if self.computed_tokens == 0.0 {
            0.0
        } else {
            1.0 - self.tokens as f64 / self.computed_tokens
        }
    }

    /// `computed tokens / tokens`: the speed-up of computing no padding; 1 if there are no tokens.
    pub fn speed_up(&self) -> f64 {
        if self.tokens == 0 {
            1.0
        } else {
            self.computed_tokens / self.tokens as f64
        }
    }
}

/// Expected longest of `rows` sequences; `rows` is at most their number.
fn expected_longest(histogram: &Histogram, rows: u64) -> f64 {
    let total = histogram.sequences();
    let (mut up_to, mut below, mut mean) = (0u64, 0.0, 0.0);
    for &(length, count) in histogram.entries() {
        up_to += count;
        let at_most = all_among(total, up_to, rows);
        mean += f64::from(length) * (at_most - below);
        below = at_most;
    }
    mean
}

/// Probability that `rows` of `total` sequences are all among `up_to` of them: `Π_{i<rows} (up_to −
/// i)/(total − i)`. The formula is symmetric in `rows` and `total − up_to`.
fn all_among(total: u64, up_to: u64, rows: u64) -> f64 {
    let above = total - up_to;
    if rows > up_to {
        return 0.0;
    }
    let (few, many) = (rows.min(above), rows.max(above));
    if few > FACTORS {
        // For many factors the product is negligible or its factors hardly differ, so the sum of
        // their logarithms is an integral, here by Simpson's rule.
        let logarithm = |x: f64| (-(many as f64) / (total as f64 - x)).ln_1p();
        let step = few as f64 / (2 * PANELS) as f64;
        let at = |point: u32| logarithm(f64::from(point) * step - 0.5);
        let panel = |p: u32| at(2 * p) + 4.0 * at(2 * p + 1) + at(2 * p + 2);
        return ((0..PANELS).map(panel).sum::<f64>() * step / 3.0).exp();
    }
    let mut product = 1.0;
    for i in 0..few {
        product *= (total - many - i) as f64 / (total - i) as f64;
        // Further factors change nothing in f64.
        if product < NEGLIGIBLE {
            break;
        }
    }
    product
}

/// A length is below 2³² and a mean is at least 1: a smaller probability is below the rounding of
/// f64.
const NEGLIGIBLE: f64 = 1e-30;
/// Number of factors that are multiplied one by one.
const FACTORS: u64 = 1 << 10;
const PANELS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Algorithm, Packer};

    #[test]
    fn many_factors_at_once_are_what_they_are_one_by_one() {
        for (total, above, rows) in [
            (10_000_000, 2_000, 30_000),
            (10_000_000, 30_000, 2_000),
            (1 << 40, 1 << 21, 1 << 20),
            (5_000, 2_000, 1_100),
            (100_000, 98_000, 2_000),
        ] {
            let up_to = total - above;
            let factors = (0..rows).map(|i| (up_to - i) as f64 / (total - i) as f64);
            let (product, at_once) = (factors.product::<f64>(), all_among(total, up_to, rows));
            assert!(
                (product - at_once).abs() <= 1e-9 * product + NEGLIGIBLE,
                "{product} {at_once}"
            );
        }
    }

    /// The computation takes no noticeable time.
    #[test]
    fn the_largest_batches_of_the_largest_histograms() {
        let lengths = (1..=10_000).map(|length| (length, 1 << 38));
        let histogram = Histogram::from_pairs(lengths).unwrap();
        let padded = Padding::expected(&histogram, u32::MAX);
        let bound = histogram.sequences() as f64 * 10_000.0;
        assert!(padded.computed_tokens <= bound * (1.0 + 1e-9));
        assert!(padded.computed_tokens > bound * 0.999, "{padded:?}");
    }

    #[test]
    fn every_order_of_four_in_pairs() {
        let lengths = [1u32, 2, 4, 7];
        let mut sum = 0.0;
        let mut orders = 0.0;
        for a in 0..4 {
            for b in (0..4).filter(|&b| b != a) {
                for c in (0..4).filter(|&c| c != a && c != b) {
                    let order = [a, b, c, 6 - a - b - c].map(|i: usize| lengths[i]);
                    sum += Padding::in_order(order, 3).computed_tokens;
                    orders += 1.0;
                }
            }
        }
        let histogram = Histogram::from_lengths(lengths).unwrap();
        let expected = Padding::expected(&histogram, 3).computed_tokens;
        assert!((sum / orders - expected).abs() < 1e-12, "{sum} {expected}");
    }

    #[test]
    fn one_batch_of_all_is_as_long_as_the_longest() {
        let lengths = [3u32, 5, 5, 9];
        let histogram = Histogram::from_lengths(lengths).unwrap();
        for batch_size in [4, 5, 8, u32::MAX] {
            let padded = Padding::expected(&histogram, batch_size);
            assert_eq!(padded.computed_tokens, 36.0, "{batch_size}");
            assert_eq!(padded, Padding::in_order(lengths, batch_size));
        }
        let nothing = Padding::expected(&Histogram::default(), 8);
        assert_eq!((nothing.share(), nothing.speed_up()), (0.0, 1.0));
    }

    #[test]
    fn the_algorithms_agree() {
        let lengths: Vec<u32> = (1..200).map(|i| i * i % 97 + 1).collect();
        let histogram = Histogram::from_lengths(lengths.iter().copied()).unwrap();
        for batch_size in [1, 3, 7, 200, 300] {
            let computed = |algorithm| {
                let packer = Packer {
                    batch_size,
                    ..Packer::new(algorithm, 1000)
                };
                packer.pack(&lengths).unwrap().computed_tokens() as f64
            };
            let padded = Padding::in_order(lengths.iter().copied(), batch_size);
            assert_eq!(padded.computed_tokens, computed(Algorithm::Padded));
            let bucketed = Padding::bucketed(&histogram, batch_size);
            assert_eq!(bucketed.computed_tokens, computed(Algorithm::Bucketed));
        }
    }
}
