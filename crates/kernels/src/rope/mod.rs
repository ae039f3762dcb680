//! Rotary position embeddings: the fused rotation of Q and K, in place.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, IndexWidth, View, ViewMut};

/// Heads in a buffer of rows: head `h` of token `t` starts at `t · row_stride + h · head_dim`.
#[derive(Debug)]
pub struct Heads<'a, D: Device> {
    /// Rotated in place: f32 or bf16, with the same type for queries and keys.
    pub tensor: ViewMut<'a, D>,
    /// Number of heads in a row.
    pub heads: usize,
    /// Number of elements from one row to the next, at least `heads · head_dim`.
    pub row_stride: usize,
}

/// Rule that pairs the elements of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Pairs `(i, i + rotary_dim/2)`: Llama as stored by Hugging Face.
    Halves,
    /// Pairs `(2i, 2i + 1)`: GPT-J.
    Interleaved,
}

/// Forward rotates by the angle, backward by its negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `a' = a·cos − b·sin`, `b' = b·cos + a·sin`.
    Forward,
    /// The transpose: the same formula with −sin.
    Backward,
}

impl Direction {
    /// Factor of the sine.
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
    /// f32 `[tokens, rotary_dim / 2]`, including the attention factor of the scaling.
    pub cos: View<'a, D>,
    /// f32 `[tokens, rotary_dim / 2]`.
    pub sin: View<'a, D>,
    /// Number of rows to rotate.
    pub tokens: usize,
    /// Number of elements of a head.
    pub head_dim: usize,
    /// Number of elements of a head that rotate: even, at most `head_dim`.
    pub rotary_dim: usize,
    /// Rule that pairs the elements.
    pub pairing: Pairing,
    /// Forward or backward.
    pub direction: Direction,
}

/// Rotary position embeddings (Su et al., 2021) of Q and K in one pass. The arithmetic is f32.
pub trait Rope: Device {
    /// Rotates `q` and `k` in place, with offsets of the narrowest width (or of the one that a
    /// [`Cuda`](tightrope_device::Cuda) forces).
    fn rope(&self, args: Checked<Rotate<'_, Self>>) -> Result<(), KernelError> {
        let width = args.index_width();
        self.rope_with_width(args, width)
    }

    /// The same with offsets of `width`; both widths give the same bits. Returns an error if the
    /// offsets do not fit.
    fn rope_with_width(
        &self,
        args: Checked<Rotate<'_, Self>>,
        width: IndexWidth,
    ) -> Result<(), KernelError>;
}

impl<D: Device> Rotate<'_, D> {
    /// Narrowest width for the largest offset, including row strides.
    pub fn index_width(&self) -> IndexWidth {
        IndexWidth::for_largest_offset(self.largest_offset() as u64)
    }

    fn fits(&self, width: IndexWidth) -> Result<(), KernelError> {
        match (self.index_width(), width) {
            (IndexWidth::Wide, IndexWidth::Narrow) => Err(KernelError::TooNarrow),
            _ => Ok(()),
        }
    }

    /// Number of elements from the first to the end of the last row, without a gap after it.
    fn elements(&self, heads: &Heads<'_, D>) -> usize {
        let width = heads.heads.saturating_mul(self.head_dim);
        match self.tokens {
            0 => 0,
            tokens => (tokens - 1)
                .saturating_mul(heads.row_stride)
                .saturating_add(width),
        }
    }

    fn largest_offset(&self) -> usize {
        let table = self.tokens.saturating_mul(self.rotary_dim / 2);
        table
            .max(self.elements(&self.q))
            .max(self.elements(&self.k))
    }
}

impl<D: Device> Check for Rotate<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        rotary_dim_fits(self.rotary_dim, self.head_dim)?;
        let dtype = operands.activation("q", self.q.tensor.as_view())?;
        for (operand, heads) in [("q", &self.q), ("k", &self.k)] {
            if heads.row_stride < heads.heads.saturating_mul(self.head_dim) {
                return Err(KernelError::Value {
                    operand: "row_stride",
                    value: heads.row_stride as f64,
                    rule: "must be at least heads · head_dim",
                });
            }
            let needed = self.elements(heads);
            operands.at_least(operand, heads.tensor.as_view(), dtype, &[needed])?;
        }
        let table = [self.tokens, self.rotary_dim / 2];
        operands.at_least("cos", self.cos, DType::F32, &table)?;
        operands.at_least("sin", self.sin, DType::F32, &table)
    }
}

/// Returns an error unless this number of elements of a head can rotate in pairs.
pub(crate) fn rotary_dim_fits(rotary_dim: usize, head_dim: usize) -> Result<(), KernelError> {
    if rotary_dim.is_multiple_of(2) && rotary_dim <= head_dim {
        return Ok(());
    }
    Err(KernelError::Value {
        operand: "rotary_dim",
        value: rotary_dim as f64,
        rule: "must be even and at most head_dim",
    })
}
