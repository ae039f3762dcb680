//! `y = x · rstd · w`, `rstd = (mean x² + eps)^-½`, one row after the other.

/// `x`: `[rows, dim]`; `w`: `[dim]`; returns `y`: `[rows, dim]` and `rstd`: `[rows]`.
pub fn forward(x: &[f64], w: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut rstd) = (Vec::new(), Vec::new());
    for x in x.chunks(w.len()) {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / w.len() as f64;
        let r = (mean + eps).sqrt().recip();
        y.extend(x.iter().zip(w).map(|(x, w)| x * r * w));
        rstd.push(r);
    }
    (y, rstd)
}

/// Returns `dx`: `[rows, dim]` and `dw`: `[dim]` for `dy`: `[rows, dim]`.
pub fn backward(dy: &[f64], x: &[f64], w: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let dim = w.len();
    let (_, rstd) = forward(x, w, eps);
    let (mut dx, mut dw) = (Vec::new(), vec![0.0; dim]);
    for ((dy, x), r) in dy.chunks(dim).zip(x.chunks(dim)).zip(rstd) {
        let inner: f64 = (0..dim).map(|h| dy[h] * w[h] * x[h]).sum();
        for h in 0..dim {
            dx.push(r * dy[h] * w[h] - r.powi(3) * x[h] * inner / dim as f64);
            dw[h] += dy[h] * x[h] * r;
        }
    }
    (dx, dw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Random, finite_difference, widen};

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let mut random = Random::new(1);
        let mut numbers = |len| widen(&random.normal(len, 1.0));
        let (x, w, dy) = (numbers(15), numbers(5), numbers(15));
        let loss = |x: &[f64], w: &[f64]| -> f64 {
            let (y, _) = forward(x, w, 1e-3);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let (dx, dw) = backward(&dy, &x, &w, 1e-3);
        let numeric = [
            finite_difference(&x, |x| loss(x, &w)),
            finite_difference(&w, |w| loss(&x, w)),
        ];
        for (analytic, numeric) in [dx, dw].iter().zip(&numeric) {
            for (a, n) in analytic.iter().zip(numeric) {
                assert!((a - n).abs() < 1e-7, "{a} {n}");
            }
        }
    }
}
