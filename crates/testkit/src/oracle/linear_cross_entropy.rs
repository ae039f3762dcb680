//! Output projection and cross-entropy with everything in memory.

use super::linear::product;

/// Factors of the logits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Factor before the softcap.
    pub logit_scale: f64,
    /// `softcap · tanh(z / softcap)`.
    pub softcap: Option<f64>,
}

/// Results; gradients are those of the weighted sum of the losses.
#[derive(Clone, Debug)]
pub struct Output {
    /// `[tokens]`; 0 if the target is negative.
    pub losses: Vec<f64>,
    /// `[tokens, hidden]`.
    pub dx: Vec<f64>,
    /// `[vocabulary, hidden]`.
    pub dweight: Vec<f64>,
}

/// `x`: `[tokens, hidden]`; `weight`: `[vocabulary, hidden]`; `weights`: `[tokens]`.
pub fn forward_backward(
    x: &[f64],
    weight: &[f64],
    targets: &[i32],
    weights: &[f64],
    hidden: usize,
    options: Options,
) -> Output {
    let (tokens, vocabulary) = (targets.len(), weight.len() / hidden);
    let z = product(
        (tokens, hidden, vocabulary),
        |t, h| options.logit_scale * x[t * hidden + h],
        |h, v| weight[v * hidden + h],
    );
    let mut dz = vec![0.0; z.len()];
    let mut losses = vec![0.0; tokens];
    for t in 0..tokens {
        let Ok(target) = usize::try_from(targets[t]) else {
            continue;
        };
        let tanh = |z: f64| options.softcap.map_or(0.0, |cap| (z / cap).tanh());
        let z = &z[t * vocabulary..][..vocabulary];
        let l: Vec<f64> = z
            .iter()
            .map(|&z| options.softcap.map_or(z, |cap| cap * tanh(z)))
            .collect();
        let largest = l.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = l.iter().map(|l| (l - largest).exp()).sum();
        losses[t] = largest + sum.ln() - l[target];
        for v in 0..vocabulary {
            let p = (l[v] - largest).exp() / sum;
            let slope = 1.0 - tanh(z[v]).powi(2);
            let own = if v == target { 1.0 } else { 0.0 };
            dz[t * vocabulary + v] = weights[t] * (p - own) * slope * options.logit_scale;
        }
    }
    let dx = product(
        (tokens, vocabulary, hidden),
        |t, v| dz[t * vocabulary + v],
        |v, h| weight[v * hidden + h],
    );
    let dweight = product(
        (vocabulary, tokens, hidden),
        |v, t| dz[t * vocabulary + v],
        |t, h| x[t * hidden + h],
    );
    Output {
        losses,
        dx,
        dweight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Random, finite_difference};

    #[test]
    fn gradients_are_derivatives() {
        let (hidden, targets) = (3, [1, -100, 4, 0]);
        let mut random = Random::new(1);
        let mut normal =
            |n| -> Vec<f64> { random.normal(n, 1.0).iter().map(|&v| v.into()).collect() };
        let (x, w) = (normal(4 * hidden), normal(5 * hidden));
        let weights = [0.5, 1.0, -2.0, 0.0];
        for softcap in [None, Some(1.5)] {
            let options = Options {
                logit_scale: 0.7,
                softcap,
            };
            let loss = |x: &[f64], w: &[f64]| -> f64 {
                let losses = forward_backward(x, w, &targets, &weights, hidden, options).losses;
                losses.iter().zip(&weights).map(|(l, w)| w * l).sum()
            };
            let got = forward_backward(&x, &w, &targets, &weights, hidden, options);
            let dx = finite_difference(&x, |x| loss(x, &w));
            let dw = finite_difference(&w, |w| loss(&x, w));
            for (a, b) in got.dx.iter().zip(&dx).chain(got.dweight.iter().zip(&dw)) {
                let close = (a - b).abs() <= 1e-8;
                assert!(close, "{a} {b}");
            }
        }
    }
}
