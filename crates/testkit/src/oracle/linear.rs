//! `y = x·Wᵀ + bias + scale · ((x ∘ mask)·Aᵀ)·Bᵀ`, and products in general.

use ndarray::Array2;

/// `C[m, n] = A·B` with `A[i, p] = a(i, p)` and `B[p, j] = b(p, j)`.
pub fn product(
    (m, k, n): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let a = Array2::from_shape_fn((m, k), |(i, p)| a(i, p));
    let b = Array2::from_shape_fn((k, n), |(p, j)| b(p, j));
    a.dot(&b).into_iter().collect()
}

/// An adapter.
#[derive(Clone, Copy, Debug)]
pub struct Lora<'a> {
    /// `[rank, inputs]`.
    pub a: &'a [f64],
    /// `[outputs, rank]`.
    pub b: &'a [f64],
    /// Factor of the product.
    pub scale: f64,
    /// Factor of each element of `x`, `[tokens, inputs]`.
    pub mask: &'a [f64],
}

/// `x`: `[tokens, inputs]`; `weight`: `[outputs, inputs]`; returns `y`: `[tokens, outputs]`.
pub fn forward(
    x: &[f64],
    weight: &[f64],
    bias: Option<&[f64]>,
    lora: Option<Lora<'_>>,
    (tokens, inputs, outputs): (usize, usize, usize),
) -> Vec<f64> {
    let mut y = product(
        (tokens, inputs, outputs),
        |t, i| x[t * inputs + i],
        |i, o| weight[o * inputs + i],
    );
    if let Some(bias) = bias {
        for (index, y) in y.iter_mut().enumerate() {
            *y += bias[index % outputs];
        }
    }
    if let Some(lora) = lora {
        let rank = lora.b.len() / outputs.max(1);
        let xa = product(
            (tokens, inputs, rank),
            |t, i| x[t * inputs + i] * lora.mask[t * inputs + i],
            |i, r| lora.a[r * inputs + i],
        );
        let up = product(
            (tokens, rank, outputs),
            |t, r| xa[t * rank + r],
            |r, o| lora.b[o * rank + r],
        );
        for (y, up) in y.iter_mut().zip(up) {
            *y += lora.scale * up;
        }
    }
    y
}
