//! Random numbers that are functions of a seed and a purpose: they are the same on every machine,
//! and drawing more for one purpose changes no other.

/// SplitMix64 generator (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

/// Purposes of random numbers in packing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// The order of the packs, and the places of equally long sequences.
    Packs,
    /// The order of the sequences of a histogram.
    Histogram,
    /// The order inside groups of equal packs.
    EqualPacks,
    /// The choices in the search for fewer packs.
    Search,
    /// The order of the packs in an epoch.
    Epoch(u64),
    /// The order of the sequences in an epoch.
    Sequences(u64),
}

/// The finalizer of SplitMix64: bits that look random, but 0 stays 0.
pub fn finalize(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bits that look random, and unrelated for neighbouring numbers.
pub fn mix(z: u64) -> u64 {
    Random(z).bits()
}

/// Hash of bytes: FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The number of `seed` at `counter`.
pub fn at(seed: u64, counter: u64) -> u64 {
    mix(finalize(seed).wrapping_add(counter))
}

/// The upper bits as a number in [0, 1).
pub fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

impl Random {
    /// The main stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of a seed for a named purpose.
    pub fn named(seed: u64, name: &str) -> Self {
        Self(mix(seed) ^ hash(name.as_bytes()))
    }

    pub(crate) fn stream(seed: u64, stream: Stream) -> Self {
        let number = match stream {
            Stream::Packs => 0,
            Stream::Histogram => 1,
            Stream::EqualPacks => 2,
            Stream::Search => 4,
            Stream::Epoch(epoch) => 1 << 32 | epoch,
            Stream::Sequences(epoch) => 1 << 33 | epoch,
        };
        Self(mix(seed) ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finalize(self.0)
    }

    /// Uniform in `0..bound` without bias (Lemire, 2019); `bound` > 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            let low = product as u64;
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }

    /// Uniform in [0, 1).
    pub fn fraction(&mut self) -> f64 {
        fraction(self.bits())
    }

    /// Puts items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_of_three_comes_equally_often() {
        let mut seen = std::collections::BTreeMap::new();
        let mut random = Random::stream(1, Stream::EqualPacks);
        for _ in 0..60_000 {
            let mut items = [0, 1, 2];
            random.shuffle(&mut items);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(
            seen.values().all(|n| (9_500..10_500).contains(n)),
            "{seen:?}"
        );
    }

    #[test]
    fn streams_differ_and_are_the_same_everywhere() {
        // Numbers of the reference program for seed 1234567.
        let mut random = Random::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([random.bits(), random.bits()], expected);
        let mut first = vec![Random::named(1, "a").bits(), Random::named(1, "b").bits()];
        for stream in [
            Stream::Packs,
            Stream::Histogram,
            Stream::Search,
            Stream::Epoch(0),
            Stream::Sequences(0),
        ] {
            first.push(Random::stream(1, stream).bits());
        }
        first.extend([at(1, 0), at(1, 1), at(2, 0)]);
        let count = first.len();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), count);
    }
}
