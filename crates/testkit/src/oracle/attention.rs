//! Causal attention of one sequence with the whole matrix of scores in memory.
//!
//! A sequence with a prefix is computed with its own copy of the prefix ([`Keys`]).

use std::ops::Range;

/// Sizes and masks.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of rows of `q`; the last query has the position of the last key.
    pub queries: usize,
    /// Number of rows of `k` and `v`.
    pub keys: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads.
    pub kv_heads: usize,
    /// Number of features of a head.
    pub head_dim: usize,
    /// Factor of `q·k`.
    pub scale: f64,
    /// Largest number of keys that a query sees.
    pub window: Option<usize>,
    /// `softcap · tanh(s / softcap)`.
    pub softcap: Option<f64>,
}

/// Rows of the keys of a sequence among those of a batch: a prefix, which other sequences may read as
/// well, and then its own.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Rows of the prefix; empty if there is none.
    pub prefix: Range<usize>,
    /// The sequence's own rows.
    pub own: Range<usize>,
}

impl Keys {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.prefix.len() + self.own.len()
    }

    /// Copies the rows of `width` elements from those of the batch.
    pub fn copy<T: Clone>(&self, batch: &[T], width: usize) -> Vec<T> {
        let of = |rows: &Range<usize>| batch[rows.start * width..rows.end * width].to_vec();
        [of(&self.prefix), of(&self.own)].concat()
    }

    /// Adds gradients of the copy into those of the batch.
    pub fn add(&self, gradients: &[f64], batch: &mut [f64], width: usize) {
        let rows = self.prefix.clone().chain(self.own.clone());
        for (row, gradients) in rows.zip(gradients.chunks_exact(width)) {
            let sums = &mut batch[row * width..][..width];
            sums.iter_mut().zip(gradients).for_each(|(s, g)| *s += g);
        }
    }
}

/// Results of the forward pass.
#[derive(Clone, Debug)]
pub struct Output {
    /// `[queries, heads, head_dim]`.
    pub y: Vec<f64>,
    /// `[queries, heads]`.
    pub lse: Vec<f64>,
}

/// Gradients with respect to the inputs, in their shapes.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[queries, heads, head_dim]`.
    pub dq: Vec<f64>,
    /// `[keys, kv_heads, head_dim]`.
    pub dk: Vec<f64>,
    /// `[keys, kv_heads, head_dim]`.
    pub dv: Vec<f64>,
}

impl Options {
    /// `(key, score, d score / d (q·k))` of every key that the query sees.
    fn scores(&self, q: &[f64], k: &[f64], query: usize, head: usize) -> Vec<(usize, f64, f64)> {
        let position = query + self.keys - self.queries;
        let first = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        (first..=position)
            .map(|key| {
                let (q, k) = (&q[self.q_at(query, head)..], &k[self.k_at(key, head)..]);
                let dot: f64 = (0..self.head_dim).map(|d| q[d] * k[d]).sum();
                let z = self.scale * dot;
                match self.softcap {
                    None => (key, z, self.scale),
                    Some(cap) => {
                        let t = (z / cap).tanh();
                        (key, cap * t, self.scale * (1.0 - t * t))
                    }
                }
            })
            .collect()
    }

    fn q_at(&self, query: usize, head: usize) -> usize {
        (query * self.heads + head) * self.head_dim
    }

    fn k_at(&self, key: usize, head: usize) -> usize {
        (key * self.kv_heads + head * self.kv_heads / self.heads) * self.head_dim
    }
}

/// `y = softmax(scores)·v`.
pub fn forward(q: &[f64], k: &[f64], v: &[f64], o: Options) -> Output {
    let mut y = vec![0.0; o.queries * o.heads * o.head_dim];
    let mut lse = vec![0.0; o.queries * o.heads];
    for query in 0..o.queries {
        for head in 0..o.heads {
            let scores = o.scores(q, k, query, head);
            let largest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.1));
            let sum: f64 = scores.iter().map(|s| (s.1 - largest).exp()).sum();
            lse[query * o.heads + head] = largest + sum.ln();
            for (key, score, _) in scores {
                for d in 0..o.head_dim {
                    y[o.q_at(query, head) + d] +=
                        (score - largest).exp() / sum * v[o.k_at(key, head) + d];
                }
            }
        }
    }
    Output { y, lse }
}

/// Gradients of `Σ dy · y`.
pub fn backward(dy: &[f64], q: &[f64], k: &[f64], v: &[f64], o: Options) -> Gradients {
    let Output { y, lse } = forward(q, k, v, o);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for query in 0..o.queries {
        for head in 0..o.heads {
            let at = o.q_at(query, head);
            let delta: f64 = (at..at + o.head_dim).map(|i| dy[i] * y[i]).sum();
            for (key, score, slope) in o.scores(q, k, query, head) {
                let key = o.k_at(key, head);
                let p = (score - lse[query * o.heads + head]).exp();
                let dp: f64 = (0..o.head_dim).map(|d| dy[at + d] * v[key + d]).sum();
                let dz = p * (dp - delta) * slope;
                for d in 0..o.head_dim {
                    dq[at + d] += dz * k[key + d];
                    dk[key + d] += dz * q[at + d];
                    dv[key + d] += p * dy[at + d];
                }
            }
        }
    }
    Gradients { dq, dk, dv }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Random, finite_difference};

    #[test]
    fn gradients_are_derivatives() {
        let mut random = Random::new(2);
        let mut normal =
            |n| -> Vec<f64> { random.normal(n, 1.0).iter().map(|&v| v.into()).collect() };
        for (window, softcap) in [(None, None), (Some(2), Some(1.5))] {
            let o = Options {
                queries: 3,
                keys: 5,
                heads: 4,
                kv_heads: 2,
                head_dim: 3,
                scale: 0.6,
                window,
                softcap,
            };
            let (q, k, v, dy) = (normal(36), normal(30), normal(30), normal(36));
            let f = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
                forward(q, k, v, o)
                    .y
                    .iter()
                    .zip(&dy)
                    .map(|(y, d)| y * d)
                    .sum()
            };
            let got = backward(&dy, &q, &k, &v, o);
            let expected = [
                finite_difference(&q, |q| f(q, &k, &v)),
                finite_difference(&k, |k| f(&q, k, &v)),
                finite_difference(&v, |v| f(&q, &k, v)),
            ];
            for (got, expected) in [got.dq, got.dk, got.dv].iter().zip(&expected) {
                for (a, b) in got.iter().zip(expected) {
                    let close = (a - b).abs() <= 1e-8;
                    assert!(close, "{a} {b}");
                }
            }
        }
    }

    /// Two sequences that read one prefix: the gradients of its keys are sums over both.
    #[test]
    fn gradients_of_a_prefix_are_derivatives() {
        let mut random = Random::new(3);
        let mut normal =
            |n| -> Vec<f64> { random.normal(n, 1.0).iter().map(|&v| v.into()).collect() };
        let (prefix, width) = (0..3, 2);
        let sequences = [0..3, 3..5, 5..9];
        let (q, k, v, dy) = (normal(18), normal(18), normal(18), normal(18));
        for window in [None, Some(3)] {
            let all = sequences.iter().enumerate().map(|(index, own)| {
                let prefix = if index == 0 { 0..0 } else { prefix.clone() };
                let own = own.clone();
                let keys = Keys { prefix, own };
                let o = Options {
                    queries: keys.own.len(),
                    keys: keys.count(),
                    heads: 1,
                    kv_heads: 1,
                    head_dim: width,
                    scale: 0.6,
                    window,
                    softcap: None,
                };
                (keys, o)
            });
            let f = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
                let sums = all.clone().map(|(keys, o)| {
                    let rows = keys.own.start * width..keys.own.end * width;
                    let (k, v) = (keys.copy(k, width), keys.copy(v, width));
                    let y = forward(&q[rows.clone()], &k, &v, o).y;
                    y.iter().zip(&dy[rows]).map(|(y, d)| y * d).sum::<f64>()
                });
                sums.sum()
            };
            let mut got = [vec![0.0; 18], vec![0.0; 18], vec![0.0; 18]];
            for (keys, o) in all.clone() {
                let rows = keys.own.start * width..keys.own.end * width;
                let (k, v) = (keys.copy(&k, width), keys.copy(&v, width));
                let own = backward(&dy[rows.clone()], &q[rows.clone()], &k, &v, o);
                got[0][rows].copy_from_slice(&own.dq);
                keys.add(&own.dk, &mut got[1], width);
                keys.add(&own.dv, &mut got[2], width);
            }
            let expected = [
                finite_difference(&q, |q| f(q, &k, &v)),
                finite_difference(&k, |k| f(&q, k, &v)),
                finite_difference(&v, |v| f(&q, &k, v)),
            ];
            for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                assert!((got - expected).abs() <= 1e-8, "{got} {expected}");
            }
        }
    }
}
