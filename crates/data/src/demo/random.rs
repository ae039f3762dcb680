//! Numbers that look random and are the same everywhere.

use tightrope_packing::random;

pub(super) struct Random(random::Random);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(random::Random::new(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// In `0..n`; `n` is small, so the bias is too.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In `low..=high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub(super) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    /// `n` different items in random order.
    pub(super) fn sample<'a, T: ?Sized>(&mut self, items: &[&'a T], n: usize) -> Vec<&'a T> {
        let mut items = items.to_vec();
        for i in 0..n.min(items.len()) {
            let other = i + self.below(items.len() - i);
            items.swap(i, other);
        }
        items.truncate(n);
        items
    }

    /// About normal, mean 0 and deviation 1: the sum of twelve uniform numbers, less 6.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.0.fraction()).sum::<f64>() - 6.0
    }
}

/// A number that stands for bytes.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    random::finalize(random::hash(bytes))
}
