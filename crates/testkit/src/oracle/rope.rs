//! Rotation of pairs by angles: multiplication of complex numbers.

/// Rotates each pair `(a, b)` of indices of `x` by its angle and multiplies it with `factor`.
pub fn rotate(x: &mut [f64], pairs: impl Iterator<Item = (usize, usize, f64)>, factor: f64) {
    for (a, b, angle) in pairs {
        let (re, im) = (x[a], x[b]);
        x[a] = factor * (re * angle.cos() - im * angle.sin());
        x[b] = factor * (re * angle.sin() + im * angle.cos());
    }
}
