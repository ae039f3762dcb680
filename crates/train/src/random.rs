//! Random numbers without state: everything random is a function of the seed and a counter.

/// SplitMix64's finalizer over both words: well mixed, and the same on every machine.
pub(crate) fn hash(seed: u64, counter: u64) -> u64 {
    mix(mix(seed)
        .wrapping_add(counter)
        .wrapping_add(0x9e37_79b9_7f4a_7c15))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in [0, 1).
pub(crate) fn uniform(seed: u64, counter: u64) -> f64 {
    (hash(seed, counter) >> 11) as f64 / (1u64 << 53) as f64
}
