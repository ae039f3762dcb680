//! Derivatives of a scalar function by central differences.

/// `∂f/∂x[i]` for every `i`, with an error of about 1e-9 times the size of `f` and its third
/// derivative.
pub fn finite_difference(x: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let (center, step) = (x[i], 1e-5 * x[i].abs().max(1.0));
            x[i] = center + step;
            let above = f(&x);
            x[i] = center - step;
            let below = f(&x);
            x[i] = center;
            (above - below) / (2.0 * step)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivative_of_a_product() {
        let d = finite_difference(&[3.0, -2.0], |x| x[0] * x[0] * x[1]);
        assert!(
            (d[0] + 12.0).abs() < 1e-7 && (d[1] - 9.0).abs() < 1e-7,
            "{d:?}"
        );
    }
}
