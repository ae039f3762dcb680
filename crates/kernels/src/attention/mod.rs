//! Variable-length causal attention: block-diagonal over ranges, grouped queries, sliding window,
//! prefixes that several ranges read.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
mod ranges;
#[cfg(test)]
mod tests;

pub use ranges::{Range, Ranges, Tiles};

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// Settings that both directions need.
#[derive(Debug)]
pub struct Config<'a, D: Device> {
    /// Which tokens see which.
    pub ranges: &'a Ranges<D>,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; `heads` is a multiple of it.
    pub kv_heads: usize,
    /// Number of features of a head.
    pub head_dim: usize,
    /// Factor of `q·k`, usually `head_dim^-½`.
    pub scale: f32,
    /// Largest number of keys that a query sees, its own included.
    pub window: Option<usize>,
    /// `softcap · tanh(scores / softcap)` before the softmax (Gemma 2: 50).
    pub softcap: Option<f32>,
}

impl<D: Device> Clone for Config<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Config<'_, D> {}

/// `y[t,h,:] = Σ_s softmax_s(scale · q[t,h,:]·k[s,g(h),:]) · v[s,g(h),:]` over the keys that the
/// range, causality and the window allow; `g(h) = h · kv_heads / heads`.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// `[queries, heads, head_dim]`.
    pub q: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub k: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub v: View<'a, D>,
    /// Overwritten in all ranges, `[queries, heads, head_dim]`.
    pub y: ViewMut<'a, D>,
    /// Overwritten with the log of the softmax's denominator, f32 `[queries, heads]`.
    pub lse: ViewMut<'a, D>,
    /// Ranges, sizes and masks.
    pub config: Config<'a, D>,
}

/// Gradients with respect to `q`, `k` and `v`; the probabilities are computed again from `lse`.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// `[queries, heads, head_dim]`.
    pub dy: View<'a, D>,
    /// From the forward pass, `[queries, heads, head_dim]`.
    pub y: View<'a, D>,
    /// From the forward pass, f32 `[queries, heads]`.
    pub lse: View<'a, D>,
    /// `[queries, heads, head_dim]`.
    pub q: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub k: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub v: View<'a, D>,
    /// Scratch for `Σ_d dy · y`, f32 `[queries, heads]`.
    pub delta: ViewMut<'a, D>,
    /// Overwritten in all ranges, `[queries, heads, head_dim]`.
    pub dq: ViewMut<'a, D>,
    /// Overwritten in all ranges, `[keys, kv_heads, head_dim]`; the keys of a prefix get the sum over
    /// their own range and then over the ranges that read them, in order.
    pub dk: ViewMut<'a, D>,
    /// Overwritten in all ranges, `[keys, kv_heads, head_dim]`.
    pub dv: ViewMut<'a, D>,
    /// Ranges, sizes and masks.
    pub config: Config<'a, D>,
}

/// Variable-length attention without tokens × tokens in memory (Dao et al., 2022). f32
/// accumulation; activations are all f32 or all bf16. On a GPU, probabilities are rounded to that
/// type before they are multiplied; on the CPU, bf16 is widened and the arithmetic is f32.
///
/// The bits of a range depend on the range alone; `y`, `lse` and `dq` of a range with a prefix are
/// those of a range with a copy of the prefix before its own rows. Working memory on the CPU per thread is about `64
/// · (3 · head_dim + 64)` f32; backward `2 · key_len · head_dim` more, for the sums of `dk` and
/// `dv` of a range and of those that read it.
pub trait Attention: Device {
    /// Writes `y` and `lse`.
    fn attention_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Writes `dq`, `dk`, `dv` and `delta`.
    fn attention_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError>;
}

impl<'a, D: Device> Config<'a, D> {
    fn check(&self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        for tensor in self.ranges.tensors() {
            operands.any("ranges", tensor.view())?;
        }
        let value = |operand, value: f64, rule| KernelError::Value {
            operand,
            value,
            rule,
        };
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let rule = "must be a multiple of the key and value heads";
            return Err(value("heads", self.heads as f64, rule));
        }
        if self.window == Some(0) {
            return Err(value("window", 0.0, "must be at least 1"));
        }
        if let Some(softcap) = self.softcap
            && (softcap.is_nan() || softcap <= 0.0)
        {
            return Err(value("softcap", f64::from(softcap), "must be positive"));
        }
        let rule = |(index, rule): (usize, _)| value("ranges", index as f64, rule);
        self.ranges.check().map_err(rule)
    }

    fn queries(&self) -> usize {
        let last = self.ranges.as_slice().last();
        last.map_or(0, |r| r.query_start as usize + r.query_len as usize)
    }

    fn keys(&self) -> usize {
        let last = self.ranges.as_slice().last();
        last.map_or(0, |r| r.key_start as usize + r.key_len as usize)
    }
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let config = &self.config;
        config.check(operands)?;
        let queries = [config.queries(), config.heads, config.head_dim];
        let keys = [config.keys(), config.kv_heads, config.head_dim];
        let dtype = operands.activation("q", self.q)?;
        operands.at_least("q", self.q, dtype, &queries)?;
        operands.at_least("k", self.k, dtype, &keys)?;
        operands.at_least("v", self.v, dtype, &keys)?;
        operands.at_least("y", self.y.as_view(), dtype, &queries)?;
        operands.at_least("lse", self.lse.as_view(), DType::F32, &queries[..2])
    }
}

impl<D: Device> Check for Backward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let config = &self.config;
        config.check(operands)?;
        let queries = [config.queries(), config.heads, config.head_dim];
        let keys = [config.keys(), config.kv_heads, config.head_dim];
        let dtype = operands.activation("dy", self.dy)?;
        for (operand, tensor) in [
            ("dy", self.dy),
            ("y", self.y),
            ("q", self.q),
            ("dq", self.dq.as_view()),
        ] {
            operands.at_least(operand, tensor, dtype, &queries)?;
        }
        for (operand, tensor) in [
            ("k", self.k),
            ("v", self.v),
            ("dk", self.dk.as_view()),
            ("dv", self.dv.as_view()),
        ] {
            operands.at_least(operand, tensor, dtype, &keys)?;
        }
        operands.at_least("lse", self.lse, DType::F32, &queries[..2])?;
        operands.at_least("delta", self.delta.as_view(), DType::F32, &queries[..2])
    }
}
