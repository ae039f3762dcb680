//! Fresh parameters: the same for a seed and a name, whatever else is in the model.

use crate::pass::mix;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// A number that stands for a name: FNV-1a.
pub(crate) fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Random {
    /// The stream of `seed` that belongs to `name`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(mix(seed) ^ hash(name))
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        let bits = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `len` numbers uniform in [-bound, bound).
    pub(crate) fn uniforms(&mut self, len: usize, bound: f64) -> Vec<f32> {
        let mut one = || (bound * (2.0 * self.uniform() - 1.0)) as f32;
        (0..len).map(|_| one()).collect()
    }

    /// `len` normal numbers.
    pub(crate) fn normals(&mut self, len: usize, deviation: f64) -> Vec<f32> {
        let mut one = || {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            (deviation * radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
        };
        (0..len).map(|_| one()).collect()
    }
}
