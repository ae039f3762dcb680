//! Sources of the operands of a product: stored rows of some element type, read as f32.
//!
//! A new storage format is one implementation of [`Rows`] and one arm in [`Weight`].

use crate::{
    KernelError,
    cpu::float::{Float, same_type, widen},
    nf4,
};
use half::{bf16, f16};
use std::ops::Range;
use tightrope_device::{Cpu, DType, View};

/// A matrix that is stored by rows and read as f32.
pub(crate) trait Rows: Sync {
    /// Returns the elements `columns` of `row`, decoded into `scratch` (at least as long) unless
    /// they are stored as f32.
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32];

    /// Returns the elements and the distance between rows, if they are stored as f32.
    fn plain(&self) -> Option<(&[f32], usize)> {
        None
    }

    /// Returns the elements and the distance between rows, if they are stored as bf16.
    fn halves(&self) -> Option<(&[bf16], usize)> {
        None
    }
}

/// Rows of `stride` elements, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    pub(crate) fn new(data: &'a [T], stride: usize) -> Self {
        Self { data, stride }
    }

    /// Elements of a row.
    pub(crate) fn slice(&self, row: usize, columns: Range<usize>) -> &'a [T] {
        let start = row * self.stride;
        &self.data[start + columns.start..start + columns.end]
    }
}

impl<T: Float> Rows for Matrix<'_, T> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let stored = self.slice(row, columns);
        if let Some(plain) = same_type(stored) {
            return plain;
        }
        let decoded = &mut scratch[..stored.len()];
        widen(decoded, stored);
        decoded
    }

    fn plain(&self) -> Option<(&[f32], usize)> {
        Some((same_type(self.data)?, self.stride))
    }

    fn halves(&self) -> Option<(&[bf16], usize)> {
        Some((same_type(self.data)?, self.stride))
    }
}

/// A weight of any stored type.
pub(crate) enum Weight<'a> {
    F32(Matrix<'a, f32>),
    BF16(Matrix<'a, bf16>),
    F16(Matrix<'a, f16>),
    Nf4(nf4::HostRows<'a>),
}

impl<'a> Weight<'a> {
    /// Rows of a weight `[_, columns]`.
    pub(crate) fn new(
        operand: &'static str,
        weight: View<'a, Cpu>,
        columns: usize,
    ) -> Result<Self, KernelError> {
        match weight.dtype() {
            DType::F32 => Ok(Self::F32(Matrix::new(weight.as_slice()?, columns))),
            DType::BF16 => Ok(Self::BF16(Matrix::new(weight.as_slice()?, columns))),
            DType::F16 => Ok(Self::F16(Matrix::new(weight.as_slice()?, columns))),
            got => Err(KernelError::DType {
                operand,
                expected: "f32, bf16 or f16".into(),
                got,
            }),
        }
    }

    /// The rows.
    pub(crate) fn rows(&self) -> &dyn Rows {
        match self {
            Self::F32(matrix) => matrix,
            Self::BF16(matrix) => matrix,
            Self::F16(matrix) => matrix,
            Self::Nf4(rows) => rows,
        }
    }
}
