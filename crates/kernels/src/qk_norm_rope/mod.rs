//! The norm of each head of queries and keys, fused with the rotation of both.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands, rope::rotary_dim_fits};
use tightrope_device::{DType, Device, View, ViewMut};

/// Queries or keys in the forward pass.
#[derive(Debug)]
pub struct HeadsForward<'a, D: Device> {
    /// Projected values, `[tokens, heads, head_dim]`.
    pub x: View<'a, D>,
    /// f32 `[head_dim]`.
    pub weight: View<'a, D>,
    /// Overwritten, `[tokens, heads, head_dim]`.
    pub y: ViewMut<'a, D>,
    /// Overwritten, f32 `[tokens, heads]`; saved for the backward pass.
    pub rstd: ViewMut<'a, D>,
    /// Number of heads of a token.
    pub heads: usize,
}

/// `n[i] = x[i] · rstd · (w[i] + plus_one)`, `rstd = (mean_i x[i]² + eps)^-½` for each head; then the
/// rotation of the pairs `(i, i + rotary_dim/2)` by the angles of the token:
/// `y[i] = n[i]·cos[i] − n[i + rotary_dim/2]·sin[i]`,
/// `y[i + rotary_dim/2] = n[i + rotary_dim/2]·cos[i] + n[i]·sin[i]`, and `y[i] = n[i]` beyond
/// `rotary_dim`.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// Queries.
    pub q: HeadsForward<'a, D>,
    /// Keys.
    pub k: HeadsForward<'a, D>,
    /// Gemma stores `w - 1`.
    pub plus_one: bool,
    /// Added inside the root.
    pub eps: f32,
    /// f32 `[tokens, rotary_dim / 2]`.
    pub cos: View<'a, D>,
    /// f32 `[tokens, rotary_dim / 2]`.
    pub sin: View<'a, D>,
    /// Number of rows in use.
    pub tokens: usize,
    /// Number of elements of a head.
    pub head_dim: usize,
    /// Number of elements of a head that rotate: even, at most `head_dim`.
    pub rotary_dim: usize,
}

/// Queries or keys in the backward pass.
#[derive(Debug)]
pub struct HeadsBackward<'a, D: Device> {
    /// Input: dy. Output: dx. `[tokens, heads, head_dim]`.
    pub dx: ViewMut<'a, D>,
    /// Projected values, `[tokens, heads, head_dim]`.
    pub x: View<'a, D>,
    /// From the forward pass, f32 `[tokens, heads]`.
    pub rstd: View<'a, D>,
    /// f32 `[head_dim]`.
    pub weight: View<'a, D>,
    /// Added into, f32 `[head_dim]`; `None` if the weight is frozen.
    pub dweight: Option<ViewMut<'a, D>>,
    /// Number of heads of a token.
    pub heads: usize,
}

/// Let `d` be dy rotated back (the rotation with −sin), `g = d · (w + plus_one)` and `n = x ·
/// rstd`: then `dx = rstd · (g − n · mean_i(g · n))` for each head, and `dw[i] = Σ d[i] · n[i]`
/// over tokens and heads.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// Queries.
    pub q: HeadsBackward<'a, D>,
    /// Keys.
    pub k: HeadsBackward<'a, D>,
    /// Value of the forward pass.
    pub plus_one: bool,
    /// Cosines of the forward pass.
    pub cos: View<'a, D>,
    /// Sines of the forward pass.
    pub sin: View<'a, D>,
    /// Number of rows in use.
    pub tokens: usize,
    /// Number of elements of a head.
    pub head_dim: usize,
    /// Value of the forward pass.
    pub rotary_dim: usize,
}

/// Norm of each head (Qwen3) and rotary embeddings in one pass over queries and keys. The
/// arithmetic is f32, rounded once; activations are all f32 or all bf16.
pub trait QkNormRope: Device {
    /// Writes `y` and `rstd` of queries and keys.
    fn qk_norm_rope_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Overwrites `dx` of queries and keys, and adds into `dweight` of both. On CUDA it returns an
    /// error if a weight is trained and a head has more than 3,168 features, several times those of
    /// any known model, because each of 8 warps keeps its gradient in shared memory.
    fn qk_norm_rope_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let Self { q, k, .. } = self;
        rotary_dim_fits(self.rotary_dim, self.head_dim)?;
        let dtype = operands.activation("q.x", q.x)?;
        let dims = [self.tokens, q.heads, self.head_dim];
        operands.at_least("q.x", q.x, dtype, &dims)?;
        operands.exact("q.weight", q.weight, &[self.head_dim])?;
        operands.at_least("q.y", q.y.as_view(), dtype, &dims)?;
        operands.at_least("q.rstd", q.rstd.as_view(), DType::F32, &dims[..2])?;
        let dims = [self.tokens, k.heads, self.head_dim];
        operands.at_least("k.x", k.x, dtype, &dims)?;
        operands.exact("k.weight", k.weight, &[self.head_dim])?;
        operands.at_least("k.y", k.y.as_view(), dtype, &dims)?;
        operands.at_least("k.rstd", k.rstd.as_view(), DType::F32, &dims[..2])?;
        let table = [self.tokens, self.rotary_dim / 2];
        operands.at_least("cos", self.cos, DType::F32, &table)?;
        operands.at_least("sin", self.sin, DType::F32, &table)
    }
}

impl<D: Device> Check for Backward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let Self { q, k, .. } = self;
        rotary_dim_fits(self.rotary_dim, self.head_dim)?;
        let dtype = operands.activation("q.dx", q.dx.as_view())?;
        let dims = [self.tokens, q.heads, self.head_dim];
        operands.at_least("q.dx", q.dx.as_view(), dtype, &dims)?;
        operands.at_least("q.x", q.x, dtype, &dims)?;
        operands.at_least("q.rstd", q.rstd, DType::F32, &dims[..2])?;
        operands.exact("q.weight", q.weight, &[self.head_dim])?;
        if let Some(dweight) = &q.dweight {
            operands.exact("q.dweight", dweight.as_view(), &[self.head_dim])?;
        }
        let dims = [self.tokens, k.heads, self.head_dim];
        operands.at_least("k.dx", k.dx.as_view(), dtype, &dims)?;
        operands.at_least("k.x", k.x, dtype, &dims)?;
        operands.at_least("k.rstd", k.rstd, DType::F32, &dims[..2])?;
        operands.exact("k.weight", k.weight, &[self.head_dim])?;
        if let Some(dweight) = &k.dweight {
            operands.exact("k.dweight", dweight.as_view(), &[self.head_dim])?;
        }
        let table = [self.tokens, self.rotary_dim / 2];
        operands.at_least("cos", self.cos, DType::F32, &table)?;
        operands.at_least("sin", self.sin, DType::F32, &table)
    }
}
