//! Elementwise, two-sided comparison in which a NaN fails.

/// Panics unless `|actual - expected| <= absolute + relative * |expected|` for every element.
#[track_caller]
pub fn assert_close(name: &str, actual: &[f32], expected: &[f64], absolute: f64, relative: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}: lengths differ");
    for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let difference = (f64::from(a) - e).abs();
        let tolerance = absolute + relative * e.abs();
        // This form fails if either side is NaN.
        let close = difference <= tolerance;
        assert!(
            close,
            "{name}[{index}]: got {a:e}, expected {e:e}, difference {difference:e} > {tolerance:e}"
        );
    }
}

/// `‖actual − expected‖ / ‖expected‖`; the plain norm of the difference where `expected` is zero.
pub fn relative_distance(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len(), "lengths differ");
    let difference: f64 = actual
        .iter()
        .zip(expected)
        .map(|(&a, &e)| (f64::from(a) - e).powi(2))
        .sum();
    let norm: f64 = expected.iter().map(|e| e * e).sum();
    if norm == 0.0 {
        difference.sqrt()
    } else {
        (difference / norm).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "x[1]")]
    fn a_nan_is_not_close() {
        assert_close("x", &[1.0, f32::NAN], &[1.0, 1.0], 1e9, 1e9);
    }

    #[test]
    fn distance_is_relative() {
        assert!((relative_distance(&[2.0, 0.0], &[1.0, 0.0]) - 1.0).abs() < 1e-12);
        assert!(relative_distance(&[f32::NAN], &[1.0]).is_nan());
    }
}
