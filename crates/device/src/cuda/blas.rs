//! Matrix products through cuBLASLt, which is found at run time.

mod library;

pub(super) use library::Blas;

use super::{Cuda, CudaBytes, Held, failed};
use crate::{DType, Device, DeviceError, Tensor, inside};
use cudarc::cublaslt::{result::CublasError, sys};
use library::{Call, Problem};
use std::sync::PoisonError;

/// The size that the varying dimension is taken to have when an algorithm is chosen.
const TYPICAL: usize = 4096;

/// A matrix in memory: rows of consecutive elements, `row` elements from one to the next.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    memory: Option<&'a CudaBytes>,
    dtype: DType,
    first: usize,
    row: usize,
    is_transposed: bool,
}

impl<'a> Matrix<'a> {
    /// The elements of a tensor, from the first on.
    pub fn of(tensor: &'a Tensor<Cuda>, row: usize) -> Self {
        Self::in_memory(Some(tensor.buffer()), tensor.dtype(), row)
    }

    /// Elements in working memory, from the first on.
    pub fn scratch(scratch: &'a Held<'_>, dtype: DType, row: usize) -> Self {
        Self::in_memory(scratch.memory(), dtype, row)
    }

    fn in_memory(memory: Option<&'a CudaBytes>, dtype: DType, row: usize) -> Self {
        Self {
            memory,
            dtype,
            first: 0,
            row,
            is_transposed: false,
        }
    }

    /// Its transpose.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            is_transposed: !self.is_transposed,
            ..self
        }
    }

    /// The matrix that starts at this row of the memory.
    #[must_use]
    pub fn from_row(self, row: usize) -> Self {
        Self {
            first: row.saturating_mul(self.row),
            ..self
        }
    }

    /// Where its first element is.
    fn address(&self) -> u64 {
        let start = self.memory.map_or(0, CudaBytes::address);
        start + (self.first * self.dtype.size()) as u64
    }

    /// Of the address, as far as it is of use: 256 bytes are what an allocation has.
    fn alignment(&self) -> u32 {
        let bytes = self.first * self.dtype.size();
        1 << bytes.trailing_zeros().min(8)
    }
}

/// A matrix that is written, as [`Matrix`].
#[derive(Debug)]
pub struct MatrixMut<'a> {
    memory: Option<&'a mut CudaBytes>,
    dtype: DType,
    first: usize,
    row: usize,
}

impl<'a> MatrixMut<'a> {
    /// The elements of a tensor, from the first on.
    pub fn of(tensor: &'a mut Tensor<Cuda>, row: usize) -> Self {
        let dtype = tensor.dtype();
        Self::in_memory(Some(tensor.buffer_mut()), dtype, row)
    }

    /// Elements in working memory, from the first on.
    pub fn scratch(scratch: &'a mut Held<'_>, dtype: DType, row: usize) -> Self {
        Self::in_memory(scratch.memory_mut(), dtype, row)
    }

    fn in_memory(memory: Option<&'a mut CudaBytes>, dtype: DType, row: usize) -> Self {
        Self {
            memory,
            dtype,
            first: 0,
            row,
        }
    }

    /// The matrix that starts at this row of the memory.
    #[must_use]
    pub fn from_row(self, row: usize) -> Self {
        Self {
            first: row.saturating_mul(self.row),
            ..self
        }
    }

    /// The same, read.
    fn shared(&self) -> Matrix<'_> {
        Matrix {
            memory: self.memory.as_deref(),
            dtype: self.dtype,
            first: self.first,
            row: self.row,
            is_transposed: false,
        }
    }
}

/// The dimension of a product that differs from call to call: the tokens. It should not be the
/// contiguous one of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varying {
    /// `m`, the rows of `a` and `c`.
    Rows,
    /// `k`, which is summed over.
    Inner,
}

/// `c[m,n] = alpha · a[m,k] · b[k,n] + bias[n]`, or `c += …`. All matrices are row-major.
///
/// `a` and `b` are both f32, bf16 or f16; `c` is of their type or f32. Products and sums in f32
/// (never TF32), rounded once when `c` is written.
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
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Of the product.
    pub alpha: f32,
    /// Whether `c` is added into or overwritten (then its contents do not matter, not even NaN).
    pub accumulate: bool,
    /// What the choice of the algorithm must not depend on.
    pub varying: Varying,
}

impl Cuda {
    /// Whether cuBLASLt is there, which [`Cuda::matmul`] needs.
    pub fn has_blas() -> bool {
        // SAFETY: opens the library and closes it again; its initialisers are trusted.
        unsafe { sys::is_culib_present() }
    }

    /// Issues a matrix product. Errors if a matrix reaches beyond its memory, if the types do not
    /// fit, if there is no cuBLASLt, or as it says.
    ///
    /// The algorithm is cuBLASLt's first choice for the types, layouts and sizes, asked for once,
    /// with the varying dimension taken as 4096 and a fixed amount of working memory. Where a sum
    /// is split, its parts are added in f32 in a fixed order. So on one GPU with one version of
    /// the library
    /// - the same product has the same bits, whatever else the GPU does;
    /// - with [`Varying::Rows`], the algorithm does not depend on the number of rows. The bits of a
    ///   row of `c` then depend on nothing but that row of `a`, as far as the library's kernels
    ///   compute each row alike; it does not promise that they do. Should it refuse that algorithm
    ///   for the true sizes, it chooses for these, and the bits depend on `m`.
    pub fn matmul(&self, product: Product<'_>) -> Result<(), DeviceError> {
        product.check()?;
        let Product { m, n, k, ref c, .. } = product;
        if m == 0 || n == 0 {
            return Ok(());
        }
        if k == 0 {
            return self.without_terms(product);
        }
        let what = format!("matrix product [{m}, {k}] · [{k}, {n}] into {}", c.dtype);
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
                // Elsewhere the length of rows, and with it their alignment, varies too.
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
            let scratch = self.scratch("matrix_product", algorithm.workspace)?;
            let workspace = scratch.hold();
            let workspace = workspace.memory().map_or(0, CudaBytes::address);
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

    /// A product whose sums are empty.
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
        let MatrixMut {
            memory,
            dtype,
            first,
            row,
        } = product.c;
        let size = dtype.size();
        let Some(memory) = memory else {
            return Ok(());
        };
        for i in 0..product.m {
            self.zero(memory, (first + i * row) * size, product.n * size)?;
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
        if !a.dtype.is_float() {
            of_type(DType::F32, a.dtype)?;
        }
        of_type(a.dtype, b.dtype)?;
        if c.dtype != DType::F32 {
            of_type(a.dtype, c.dtype)?;
        }
        let (m, n, k) = (self.m, self.n, self.k);
        fits(a, stored(a.is_transposed, m, k))?;
        fits(b, stored(b.is_transposed, k, n))?;
        fits(&c.shared(), (m, n))?;
        match &self.bias {
            Some(bias) => {
                of_type(c.dtype, bias.dtype)?;
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
            types: [a.dtype, c.dtype],
            alignment: [a.alignment(), b.alignment(), c.shared().alignment()],
            has_bias: self.bias.is_some(),
        }
    }
}

/// Rows and columns as they lie in memory, of a matrix of this shape or of its transpose.
fn stored(is_transposed: bool, rows: usize, columns: usize) -> (usize, usize) {
    match is_transposed {
        true => (columns, rows),
        false => (rows, columns),
    }
}

/// Errors unless rows of a matrix, as stored, neither overlap nor reach beyond the memory.
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
    let size = matrix.dtype.size();
    let elements = (rows - 1).saturating_mul(row).saturating_add(columns);
    let bytes = elements.saturating_mul(size);
    let len = matrix.memory.map_or(0, CudaBytes::len);
    inside(matrix.first.saturating_mul(size), bytes, len).map(drop)
}
