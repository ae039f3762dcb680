//! Sources of the operands of a product: stored rows of some element type, read as f32.
//!
//! A new storage format is one implementation of [`Rows`] and one arm in [`Weight`].

use crate::{KernelError, nf4};
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

    /// Whether every element is a bf16.
    fn is_bf16(&self) -> bool {
        false
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

    fn slice(&self, row: usize, columns: Range<usize>) -> &'a [T] {
        let start = row * self.stride;
        &self.data[start + columns.start..start + columns.end]
    }
}

impl Rows for Matrix<'_, f32> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, _: &'s mut [f32]) -> &'s [f32] {
        self.slice(row, columns)
    }

    fn plain(&self) -> Option<(&[f32], usize)> {
        Some((self.data, self.stride))
    }
}

impl Rows for Matrix<'_, bf16> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let stored = self.slice(row, columns);
        let decoded = &mut scratch[..stored.len()];
        for (d, s) in decoded.iter_mut().zip(stored) {
            // Takes the upper half of an f32, without the branches of a general conversion.
            *d = f32::from_bits(u32::from(s.to_bits()) << 16);
        }
        decoded
    }

    fn is_bf16(&self) -> bool {
        true
    }
}

impl Rows for Matrix<'_, f16> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        use half::slice::HalfFloatSliceExt;
        let stored = self.slice(row, columns);
        let decoded = &mut scratch[..stored.len()];
        stored.convert_to_f32_slice(decoded);
        decoded
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
