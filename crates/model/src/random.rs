//! New parameters, which depend on a seed and a name alone, whatever else is in the model.

use tightrope_packing::random::Random;

/// `len` numbers uniform in [-bound, bound).
pub(crate) fn uniforms(random: &mut Random, len: usize, bound: f64) -> Vec<f32> {
    let mut one = || (bound * (2.0 * random.fraction() - 1.0)) as f32;
    (0..len).map(|_| one()).collect()
}

/// `len` normal numbers.
pub(crate) fn normals(random: &mut Random, len: usize, deviation: f64) -> Vec<f32> {
    let mut one = || {
        let radius = (-2.0 * (1.0 - random.fraction()).ln()).sqrt();
        (deviation * radius * (std::f64::consts::TAU * random.fraction()).cos()) as f32
    };
    (0..len).map(|_| one()).collect()
}
