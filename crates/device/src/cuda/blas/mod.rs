//! Matrix products through cuBLASLt, which is loaded at run time.

mod library;

pub(super) use library::Blas;

use super::{Cuda, failed};
use crate::{DType, Device, DeviceError, View, ViewMut};
use cudarc::cublaslt::{result::CublasError, sys};
use library::{Call, Problem};
use std::sync::PoisonError;

/// Value of the varying dimension when an algorithm is chosen.
const TYPICAL: usize = 4096;

/// A matrix in memory: rows of consecutive elements that start at the first element of a view;
/// `row` elements lie between the starts of two rows.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    view: View<'a, Cuda>,
    row: usize,
    is_transposed: bool,
}

impl<'a> Matrix<'a> {
    /// A matrix made of rows of a view.
    pub fn of(view: View<'a, Cuda>, row: usize) -> Self {
        Self {
            view,
            row,
            is_transposed: false,
        }
    }

    /// The transpose of the matrix.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            is_transposed: !self.is_transposed,
            ..self
        }
    }

    /// The matrix that starts at this row; returns an error if the view ends before it.
    pub fn from_row(self, row: usize) -> Result<Self, DeviceError> {
        let first = row.saturating_mul(self.row);
        let view = self.view.elements(first..self.view.len())?;
        Ok(Self { view, ..self })
    }

    fn address(&self) -> u64 {
        self.view.as_ptr().addr() as u64
    }

    /// Alignment of the address in bytes, at most 256, the alignment of an allocation.
    fn alignment(&self) -> u32 {
        1 << self.address().trailing_zeros().min(8)
    }
}

/// A matrix that is written; see [`Matrix`].
#[derive(Debug)]
pub struct MatrixMut<'a> {
    view: ViewMut<'a, Cuda>,
    row: usize,
}

impl<'a> MatrixMut<'a> {
    /// A matrix made of rows of a view.
    pub fn of(view: ViewMut<'a, Cuda>, row: usize) -> Self {
        Self { view, row }
    }

    /// The matrix that starts at this row; returns an error if the view ends before it.
    pub fn from_row(self, row: usize) -> Result<Self, DeviceError> {
        let end = self.view.len();
        let first = row.saturating_mul(self.row);
        let view = self.view.elements(first..end)?;
        Ok(Self { view, ..self })
    }

    /// The same matrix, for reading.
    fn shared(&self) -> Matrix<'_> {
        Matrix::of(self.view.as_view(), self.row)
    }
}

/// The dimension of a product that varies between calls: the tokens. It should not be the
/// contiguous dimension of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varying {
    /// `m`, the rows of `a` and `c`.
    Rows,
    /// `k`, the dimension of the sum.
    Inner,
}

/// `c[m,n] = alpha · a[m,k] · b[k,n] + bias[n]`, or `c += …`. All matrices are row-major.
///
/// `a` and `b` are both f32 or both bf16; `c` has their type or f32. Products and sums are f32
/// (never TF32), and are rounded once when `c` is written.
#[derive(Debug)]
pub struct Product<'a> {
    /// `[m, k]`.
    pub a: Matrix<'a>,
    /// `[k, n]`.
    pub b: Matrix<'a>,
    /// Overwritten or added into, `[m, n]`; memory between its rows is left alone.
    pub c: MatrixMut<'a>,
    /// Added to every row, `[1, n]` of the type of `c`.
    pub bias: Option<Matrix<'a>>,
    /// Number of rows of the result.
    pub m: usize,
    /// Number of columns of the result.
    pub n: usize,
    /// Number of terms of each sum.
    pub k: usize,
    /// Factor of the product.
    pub alpha: f32,
    /// Whether `c` is added into or overwritten (then its contents do not matter, not even NaN).
    pub accumulate: bool,
    /// Dimension that the choice of the algorithm must not depend on.
    pub varying: Varying,
}

impl Cuda {
    /// Whether cuBLASLt is available, which [`Cuda::matmul`] needs.
    pub fn has_blas() -> bool {
        // SAFETY: opens the library and closes it again; its initialisers are trusted.
        unsafe { sys::is_culib_present() }
    }

    /// Issues a matrix product. Returns an error if a matrix exceeds its memory, if the types do
    /// not fit, if cuBLASLt is missing, or if cuBLASLt reports an error.
    ///
    /// The algorithm is cuBLASLt's first choice for the types, layouts and sizes, requested once,
    /// with 4096 as the varying dimension and a fixed amount of working memory. If a sum is split,
    /// its parts are added in f32 in a fixed order. Therefore, on one GPU with one version of the
    /// library
    /// - the same product has the same bits, whatever else runs on the GPU;
    /// - with [`Varying::Rows`], the algorithm does not depend on the number of rows. The bits of a
    ///   row of `c` then depend on nothing but that row of `a`, if the library's kernels compute
    ///   each row alike, which the library does not promise. If it refuses that algorithm for the
    ///   true sizes, it chooses another one for these, and the bits depend on `m`.
    pub fn matmul(&self, product: Product<'_>) -> Result<(), DeviceError> {
        product.check()?;
        let Product { m, n, k, ref c, .. } = product;
        if m == 0 || n == 0 {
            return Ok(());
        }
        if k == 0 {
            return self.without_terms(product);
        }
        let what = format!(
            "matrix product [{m}, {k}] · [{k}, {n}] into {}",
            c.view.dtype()
        );
        let error = |code: CublasError| DeviceError::Cuda {
            what: what.clone(),
            reason: code.to_string(),
        };
        let context = &self.shared.context;
        context
            .bind_to_thread()
            .map_err(|code| failed(&what, &code))?;
        let blas = &self.shared.blas;
        let mut blas = blas.lock().unwrap_or_else(PoisonError::into_inner);
        let blas = match &mut *blas {
            Some(blas) => blas,
            missing => missing.insert(Blas::new()?),
        };
        let exact = product.problem();
        let typical = Problem {
            sizes: match product.varying {
                // Otherwise the length of rows varies, and with it their alignment.
                Varying::Rows if !product.a.is_transposed => [TYPICAL, n, k],
                Varying::Inner if product.a.is_transposed && !product.b.is_transposed => {
                    [m, n, TYPICAL]
                }
                _ => exact.sizes,
            },
            ..exact
        };
        let call = Call::new(exact, product.bias).map_err(error)?;
        let mut issue = |problem| {
            let algorithm = blas.algorithm(problem).map_err(error)?;
            let mut scratch = self.scratch(DType::U8, &[algorithm.workspace])?;
            let workspace = scratch.view_mut().as_mut_ptr().addr() as u64;
            // SAFETY: the check proved that every matrix lies in its memory.
            let status = unsafe { call.issue(self, blas.handle, &product, algorithm, workspace) };
            Ok::<_, DeviceError>(status)
        };
        let refused = CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
        match issue(typical)? {
            Err(code) if code == refused && typical != exact => issue(exact)?,
            status => status,
        }
        .map_err(error)
    }

    /// A product with empty sums.
    fn without_terms(&self, product: Product<'_>) -> Result<(), DeviceError> {
        if product.bias.is_some() {
            return Err(DeviceError::NoKernel {
                operation: "matmul",
                variant: "a bias without a product".into(),
            });
        }
        if product.accumulate {
            return Ok(());
        }
        let MatrixMut { mut view, row } = product.c;
        for first in (0..product.m).map(|i| i * row) {
            let row = view.reborrow().elements(first..first + product.n)?;
            row.zero()?;
        }
        Ok(())
    }
}

impl Product<'_> {
    fn check(&self) -> Result<(), DeviceError> {
        let (a, b, c) = (&self.a, &self.b, &self.c);
        let of_type = |expected, got| match expected == got {
            true => Ok(()),
            false => Err(DeviceError::WrongDType { expected, got }),
        };
        if !Cuda::ACTIVATIONS.contains(&a.view.dtype()) {
            of_type(DType::F32, a.view.dtype())?;
        }
        of_type(a.view.dtype(), b.view.dtype())?;
        if c.view.dtype() != DType::F32 {
            of_type(a.view.dtype(), c.view.dtype())?;
        }
        let (m, n, k) = (self.m, self.n, self.k);
        fits(a, stored(a.is_transposed, m, k))?;
        fits(b, stored(b.is_transposed, k, n))?;
        fits(&c.shared(), (m, n))?;
        match &self.bias {
            Some(bias) => {
                of_type(c.view.dtype(), bias.view.dtype())?;
                fits(bias, (1, n))
            }
            None => Ok(()),
        }
    }

    fn problem(&self) -> Problem {
        let (a, b, c) = (&self.a, &self.b, &self.c);
        Problem {
            sizes: [self.m, self.n, self.k],
            rows: [a.row, b.row, c.row],
            is_transposed: [a.is_transposed, b.is_transposed],
            types: [a.view.dtype(), c.view.dtype()],
            alignment: [a.alignment(), b.alignment(), c.shared().alignment()],
            has_bias: self.bias.is_some(),
        }
    }
}

/// Rows and columns as stored, for a matrix of this shape or its transpose.
fn stored(is_transposed: bool, rows: usize, columns: usize) -> (usize, usize) {
    match is_transposed {
        true => (columns, rows),
        false => (rows, columns),
    }
}

/// Returns an error if the stored rows of a matrix overlap or exceed the memory.
fn fits(matrix: &Matrix<'_>, (rows, columns): (usize, usize)) -> Result<(), DeviceError> {
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let row = matrix.row;
    if rows > 1 && row < columns {
        return Err(DeviceError::WrongLength {
            shape: vec![rows, columns],
            needed: columns,
            got: row,
        });
    }
    let end = (rows - 1).saturating_mul(row).saturating_add(columns);
    matrix.view.elements(0..end).map(drop)
}
