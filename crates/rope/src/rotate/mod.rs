//! The fused rotation of Q and K, in place.

mod cpu;
mod cuda;
mod kernel;

use crate::RopeError;
use tightrope_device::{DType, Device, IndexWidth, Tensor};

/// Heads in a buffer of rows: head `h` of token `t` starts at `t · row_stride + h · head_dim`.
#[derive(Debug)]
pub struct Heads<'a, D: Device> {
    /// Rotated in place: f32, bf16 or f16 (f32 on the CPU), the same for queries and keys.
    pub tensor: &'a mut Tensor<D>,
    /// Heads of a row.
    pub heads: usize,
    /// Elements from one row to the next, at least `heads · head_dim`.
    pub row_stride: usize,
}

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `(i, i + rotary_dim/2)`: Llama as Hugging Face stores it.
    Halves,
    /// `(2i, 2i + 1)`: GPT-J.
    Interleaved,
}

/// Forward rotates by the angle, backward by its negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `a' = a·cos − b·sin`, `b' = b·cos + a·sin`.
    Forward,
    /// The transpose: the same with −sin.
    Backward,
}

impl Direction {
    /// The factor of the sine.
    fn sign(self) -> f32 {
        match self {
            Direction::Forward => 1.0,
            Direction::Backward => -1.0,
        }
    }
}

/// Rotates the first `rotary_dim` elements of every head of `q` and `k`.
#[derive(Debug)]
pub struct Rotate<'a, D: Device> {
    /// Queries.
    pub q: Heads<'a, D>,
    /// Keys.
    pub k: Heads<'a, D>,
    /// f32 `[tokens, rotary_dim / 2]`, the attention factor of the scaling included.
    pub cos: &'a Tensor<D>,
    /// f32 `[tokens, rotary_dim / 2]`.
    pub sin: &'a Tensor<D>,
    /// Rows to rotate.
    pub tokens: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a head that rotate: even, at most `head_dim`.
    pub rotary_dim: usize,
    /// Which elements form a pair.
    pub pairing: Pairing,
    /// Forward or backward.
    pub direction: Direction,
}

/// Rotary position embeddings (Su et al., 2021) of Q and K in one pass. Arithmetic in f32.
pub trait Rope: Device {
    /// Rotates `q` and `k` in place, with offsets of the narrowest width (or of the one that a
    /// [`Cuda`](tightrope_device::Cuda) forces). Errors if they do not fit ([`Rotate::check`]).
    fn rope(&self, args: Rotate<'_, Self>) -> Result<(), RopeError> {
        let width = args.check()?;
        self.rope_with_width(args, width)
    }

    /// The same with offsets of `width`; both widths give the same bits. Errors if the offsets do
    /// not fit it.
    fn rope_with_width(&self, args: Rotate<'_, Self>, width: IndexWidth) -> Result<(), RopeError>;
}

impl<D: Device> Rotate<'_, D> {
    /// Proves that every offset lies inside its buffer, and returns the width that offsets need.
    pub fn check(&self) -> Result<IndexWidth, RopeError> {
        let largest = self.largest_offset()?;
        Ok(IndexWidth::for_largest_offset(largest as u64))
    }

    /// [`Rotate::check`], and that `width` is wide enough.
    pub fn check_width(&self, width: IndexWidth) -> Result<(), RopeError> {
        match (self.check()?, width) {
            (IndexWidth::Wide, IndexWidth::Narrow) => Err(RopeError::TooNarrow),
            _ => Ok(()),
        }
    }

    /// The same proof; returns the largest offset, row strides included.
    fn largest_offset(&self) -> Result<usize, RopeError> {
        let value = |name, value: usize, rule| RopeError::Value {
            name,
            value: value as f64,
            rule,
        };
        if !self.rotary_dim.is_multiple_of(2) || self.rotary_dim > self.head_dim {
            let rule = "must be even and at most head_dim";
            return Err(value("rotary_dim", self.rotary_dim, rule));
        }
        let dtype = self.q.tensor.dtype();
        if !dtype.is_float() {
            return Err(RopeError::DType {
                operand: "q",
                expected: "f32, bf16 or f16",
                got: dtype,
            });
        }
        let mut largest = 0;
        for (operand, heads) in [("q", &self.q), ("k", &self.k)] {
            let width = heads.heads.saturating_mul(self.head_dim);
            if heads.row_stride < width {
                let rule = "must be at least heads · head_dim";
                return Err(value("row_stride", heads.row_stride, rule));
            }
            let needed = match self.tokens {
                0 => 0,
                tokens => (tokens - 1)
                    .saturating_mul(heads.row_stride)
                    .saturating_add(width),
            };
            long_enough(operand, heads.tensor, dtype, needed)?;
            largest = largest.max(needed);
        }
        let table = self.tokens.saturating_mul(self.rotary_dim / 2);
        long_enough("cos", self.cos, DType::F32, table)?;
        long_enough("sin", self.sin, DType::F32, table)?;
        Ok(largest.max(table))
    }
}

fn long_enough<D: Device>(
    operand: &'static str,
    tensor: &Tensor<D>,
    dtype: DType,
    needed: usize,
) -> Result<(), RopeError> {
    if tensor.dtype() != dtype {
        return Err(RopeError::DType {
            operand,
            expected: dtype.name(),
            got: tensor.dtype(),
        });
    }
    if tensor.len() < needed {
        return Err(RopeError::TooShort {
            operand,
            needed,
            got: tensor.len(),
        });
    }
    Ok(())
}
