//! Lower bounds on the number of packs that any algorithm needs.

use crate::Histogram;

/// Best of the bounds below for packs of `capacity` tokens and at most `depth` sequences. Lengths
/// are in `1..=capacity`. It takes at most about `EFFORT` steps beyond O(distinct lengths).
///
/// * `⌈n / depth⌉` and `L1 = ⌈Σ length / capacity⌉`;
/// * dual feasible functions: if `f` maps every set of lengths that fits a pack to values of at most
///   `f(capacity)` in sum, `⌈Σ f(length) / f(capacity)⌉` packs are needed. Used are
///   `f₀(ε)`, which with all ε gives `L2` of Martello and Toth (1990), `u(k)` after `f₀(ε)` of Fekete
///   and Schepers (2001), and `f₁(k)` of Carlier, Clautiaux and Moukrim (2007).
pub fn lower_bound(histogram: &Histogram, capacity: u64, depth: u64) -> u64 {
    let by_depth = histogram.sequences().div_ceil(depth);
    let by_tokens = histogram.tokens().div_ceil(capacity);
    let simple = by_depth.max(by_tokens);
    let entries = histogram.entries();
    if entries.is_empty() {
        return simple;
    }
    let cumulative = |k| fekete_schepers(entries, capacity, k);
    let rounded = (0..=STEPS.min(capacity - 1)).map(cumulative);
    let most = (EFFORT / entries.len() as u64).max(1);
    let stride = (capacity / 2).div_ceil(most).max(1);
    let parts = (1..=capacity / 2).step_by(stride as usize);
    let parts = parts.map(|k| carlier_clautiaux_moukrim(entries, capacity, k));
    rounded.chain(parts).fold(simple, u64::max)
}

/// Largest `k` of `u(k)`.
const STEPS: u64 = 24;
/// Total number of evaluations of `f₁`.
const EFFORT: u64 = 1 << 18;

/// Best bound of `u(k) ∘ f₀(ε)` over all ε; `k` = 0 stands for `f₀(ε)` alone.
///
/// `f₀(ε)` lifts lengths beyond `capacity − ε` to the capacity and drops those below ε. `u(k)`
/// keeps `x` if `x·(k+1)/capacity` is an integer, and otherwise gives
/// `⌊x·(k+1)/capacity⌋·capacity/k`; both are multiplied by `k` here to stay integers.
fn fekete_schepers(entries: &[(u32, u64)], capacity: u64, k: u64) -> u64 {
    let value = |length: u32| -> u128 {
        let (x, c, k) = (u128::from(length), u128::from(capacity), u128::from(k));
        if k == 0 {
            x
        } else if (x * (k + 1)).is_multiple_of(c) {
            x * k
        } else {
            x * (k + 1) / c * c
        }
    };
    let whole = u128::from(capacity) * u128::from(k.max(1));
    // Starts with the sum of values for ε = 1. Then ε grows over each length up to half the
    // capacity: lengths below ε leave the sum, and lengths above capacity − ε count as whole packs.
    let mut sum: u128 = entries
        .iter()
        .map(|&(length, count)| u128::from(count) * value(length))
        .sum();
    let mut best = sum.div_ceil(whole);
    let mut large = entries.len();
    for &(length, count) in entries {
        // ε = length + 1 drops this length.
        let epsilon = u64::from(length) + 1;
        if epsilon > capacity / 2 {
            break;
        }
        sum -= u128::from(count) * value(length);
        while large > 0 && u64::from(entries[large - 1].0) > capacity - epsilon {
            large -= 1;
            let (length, count) = entries[large];
            sum += u128::from(count) * (whole - value(length));
        }
        best = best.max(sum.div_ceil(whole));
    }
    best as u64
}

/// `f₁(k)`: `2·(⌊C/k⌋ − ⌊(C−x)/k⌋)` above half the capacity `C`, `⌊C/k⌋` at it, `2·⌊x/k⌋` below; a
/// whole pack is `2·⌊C/k⌋`.
fn carlier_clautiaux_moukrim(entries: &[(u32, u64)], capacity: u64, k: u64) -> u64 {
    let parts = capacity / k;
    let value = |x: u64| match (2 * x).cmp(&capacity) {
        std::cmp::Ordering::Greater => 2 * (parts - (capacity - x) / k),
        std::cmp::Ordering::Equal => parts,
        std::cmp::Ordering::Less => 2 * (x / k),
    };
    let sum: u128 = entries
        .iter()
        .map(|&(length, count)| u128::from(count) * u128::from(value(length.into())))
        .sum();
    sum.div_ceil(u128::from(2 * parts)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(lengths: &[u32], capacity: u64) -> u64 {
        let histogram = Histogram::from_lengths(lengths.iter().copied()).unwrap();
        lower_bound(&histogram, capacity, u64::MAX)
    }

    #[test]
    fn known_bounds() {
        assert_eq!(bound(&[], 10), 0);
        // L1 would be 2.
        assert_eq!(bound(&[6, 6, 6], 10), 3);
        // L2: the 3s cannot join the 8s.
        assert_eq!(bound(&[8, 8, 3, 3, 3, 3], 10), 4);
        // A pack holds at most three lengths just above a quarter: u(3).
        assert_eq!(bound(&[26; 7], 100), 3);
        let pair = Histogram::from_pairs([(1, 7)]).unwrap();
        assert_eq!(lower_bound(&pair, 100, 2), 4);
    }
}
