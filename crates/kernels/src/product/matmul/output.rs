//! Destinations of products: memory of f32, or of bf16 that is written once, with whole sums.

use super::Base;
use crate::{
    KernelError,
    cpu::{
        float::{Activation, round, widen},
        scratch::Scratch,
    },
};
use half::bf16;
use std::ops::Range;
use tightrope_device::Cpu;

/// Destination of the result: element `(i, j)` goes to `data[i · row_stride + j · column_stride]`.
pub(crate) struct Output<'a> {
    data: Data<'a>,
    row_stride: usize,
    column_stride: usize,
}

enum Data<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl<'a> From<&'a mut [f32]> for Data<'a> {
    fn from(data: &'a mut [f32]) -> Self {
        Self::F32(data)
    }
}

impl<'a> From<&'a mut [bf16]> for Data<'a> {
    fn from(data: &'a mut [bf16]) -> Self {
        Self::Bf16(data)
    }
}

impl<'a> Output<'a> {
    /// `C`, or its transpose, is stored by rows; `stride` elements lie between the starts of two.
    #[allow(private_bounds, reason = "there are two types")]
    pub(crate) fn new(data: impl Into<Data<'a>>, stride: usize, is_transposed: bool) -> Self {
        let (row_stride, column_stride) = match is_transposed {
            false => (stride, 1),
            true => (1, stride),
        };
        Self {
            data: data.into(),
            row_stride,
            column_stride,
        }
    }

    /// Memory of the output, which has `m` rows and `n` columns of a result, neither of them 0.
    pub(super) fn target(&mut self, m: usize, n: usize) -> Target {
        let (row_stride, column_stride) = (self.row_stride, self.column_stride);
        let last = (m - 1) * row_stride + (n - 1) * column_stride;
        let len = match &self.data {
            Data::F32(data) => data.len(),
            Data::Bf16(data) => data.len(),
        };
        assert!(last < len, "the result does not fit its memory");
        match &mut self.data {
            Data::F32(data) => Target::F32(Memory {
                data: data.as_mut_ptr(),
                row_stride,
                column_stride,
            }),
            Data::Bf16(data) => Target::Bf16(Memory {
                data: data.as_mut_ptr(),
                row_stride,
                column_stride,
            }),
        }
    }
}

/// Memory of the result; several threads write tiles of it.
#[derive(Clone, Copy)]
pub(super) enum Target {
    F32(Memory<f32>),
    Bf16(Memory<bf16>),
}

impl Target {
    /// The address of an element, and the distance between rows in bytes.
    pub(super) fn line(&self, row: usize, column: usize) -> (*const f32, usize) {
        match self {
            Self::F32(c) => (
                c.at(row, column).cast_const(),
                c.row_stride * size_of::<f32>(),
            ),
            Self::Bf16(c) => (
                c.at(row, column).cast_const().cast(),
                c.row_stride * size_of::<bf16>(),
            ),
        }
    }
}

/// Places of the elements of a result.
#[derive(Clone, Copy)]
pub(super) struct Memory<T> {
    data: *mut T,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<T> Memory<T> {
    /// The rows and columns of a tile, with `stride` elements from one row to the next.
    pub(super) fn tile(data: &mut [T], rows: &Range<usize>, first: usize, stride: usize) -> Self {
        Self {
            data: data.as_mut_ptr().wrapping_sub(rows.start * stride + first),
            row_stride: stride,
            column_stride: 1,
        }
    }

    pub(super) fn at(&self, row: usize, column: usize) -> *mut T {
        self.data
            .wrapping_add(row * self.row_stride + column * self.column_stride)
    }
}

// SAFETY: threads write disjoint tiles only (`Part::tile` is called once for each).
unsafe impl<T> Send for Memory<T> {}
// SAFETY: threads write disjoint tiles only (`Part::tile` is called once for each).
unsafe impl<T> Sync for Memory<T> {}

impl<T: Activation> Memory<T> {
    /// Writes these elements, widened, to `to`, whose rows have no gaps between columns.
    ///
    /// # Safety
    /// Both memories must have these elements, and nothing else may write them or use those of
    /// `to`.
    unsafe fn load(&self, rows: Range<usize>, columns: Range<usize>, to: Memory<f32>) {
        for row in rows {
            // SAFETY: the caller promises these elements.
            let to =
                unsafe { std::slice::from_raw_parts_mut(to.at(row, columns.start), columns.len()) };
            let from = self.at(row, columns.start);
            if self.column_stride == 1 {
                // SAFETY: the caller promises these elements.
                widen(to, unsafe {
                    std::slice::from_raw_parts(from, columns.len())
                });
                continue;
            }
            for (column, to) in to.iter_mut().enumerate() {
                // SAFETY: the caller promises these elements.
                *to = unsafe { *from.wrapping_add(column * self.column_stride) }.get();
            }
        }
    }

    /// Overwrites these elements with those of `from`, rounded.
    ///
    /// # Safety
    /// Both memories must have these elements, nothing else may use them, and nothing may write
    /// those of `from`.
    unsafe fn store(&self, rows: Range<usize>, columns: Range<usize>, from: Memory<f32>) {
        for row in rows {
            // SAFETY: the caller promises these elements.
            let from =
                unsafe { std::slice::from_raw_parts(from.at(row, columns.start), columns.len()) };
            let to = self.at(row, columns.start);
            if self.column_stride == 1 {
                // SAFETY: the caller promises these elements.
                let to = unsafe { std::slice::from_raw_parts_mut(to, columns.len()) };
                round(to, from);
                continue;
            }
            for (column, &from) in from.iter().enumerate() {
                // SAFETY: the caller promises these elements.
                unsafe { *to.wrapping_add(column * self.column_stride) = T::rounded(from) };
            }
        }
    }

    /// Computes these elements in working memory of f32, whose sums may be read and written several
    /// times, and rounds them once. `compute` gets the base and the place of the sums.
    ///
    /// # Safety
    /// The memory must have these elements, and nothing else may use them.
    pub(super) unsafe fn in_f32<'b>(
        &self,
        cpu: &Cpu,
        (rows, columns): (Range<usize>, Range<usize>),
        base: Base<'b>,
        compute: impl FnOnce(Base<'b>, Memory<f32>) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let stride = columns.len().next_multiple_of(16);
        let mut sums = Scratch::take(cpu, rows.len() * stride)?;
        let memory = Memory::tile(&mut sums, &rows, columns.start, stride);
        if let Base::Output = base {
            // SAFETY: the caller promises the elements; the working memory has room for them.
            unsafe { self.load(rows.clone(), columns.clone(), memory) };
        }
        compute(base, memory)?;
        // SAFETY: the caller promises the elements; the working memory has room for them.
        unsafe { self.store(rows, columns, memory) };
        Ok(())
    }
}
