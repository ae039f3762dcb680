//! Sequence lengths distributed as in real instruction data.

use std::f64::consts::TAU;

/// Log-normal lengths with this median and sigma, clamped to `1..=max`; the same for the same seed.
pub fn log_normal_lengths(count: usize, median: f64, sigma: f64, max: u32, seed: u64) -> Vec<u32> {
    let mut state = seed;
    // SplitMix64 (Steele, Lea, Flood 2014), its upper 53 bits as a number in (0, 1].
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
    };
    let mut length = || {
        // Box and Muller (1958).
        let normal = (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos();
        (median * (sigma * normal).exp()).clamp(1.0, f64::from(max)) as u32
    };
    (0..count).map(|_| length()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_spread_and_bounds_are_as_asked() {
        let mut lengths = log_normal_lengths(100_001, 90.0, 0.9, 2048, 1);
        assert_eq!(lengths, log_normal_lengths(100_001, 90.0, 0.9, 2048, 1));
        assert_ne!(lengths, log_normal_lengths(100_001, 90.0, 0.9, 2048, 2));
        lengths.sort_unstable();
        let median = lengths[50_000];
        assert!((88..=92).contains(&median), "{median}");
        // One sigma above the median: 90 · e^0.9 = 221.4, at the 84.13 % quantile.
        let above = lengths[84_134];
        assert!((215..=228).contains(&above), "{above}");
        assert!(lengths[0] >= 1 && lengths[100_000] == 2048);
    }
}
