//! Matrix products: the one place where a device multiplies matrices.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod dropout;
#[cfg(feature = "cuda")]
mod kernel;
pub(crate) mod matmul;
#[cfg(test)]
mod tests;

pub use dropout::Dropout;
#[cfg(test)]
pub(crate) use dropout::Mask;
pub(crate) use dropout::check_dropout;

use crate::{
    Check, Checked, KernelError,
    check::{Operands, product},
    nf4,
};
use tightrope_device::{DType, Device, Scratch, View, ViewMut};

/// Elements of a stored matrix, row by row.
#[derive(Debug)]
pub enum Elements<'a, D: Device> {
    /// f32, bf16 or f16.
    Float(View<'a, D>),
    /// NF4; blocks do not end with rows. A product decodes the matrix as it reads it: on the CPU a
    /// few rows at a time, to f32; on GPUs the whole matrix, to the type of the product.
    Nf4(nf4::Weight<'a, D>),
}

impl<D: Device> Clone for Elements<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Elements<'_, D> {}

impl<'a, D: Device> Elements<'a, D> {
    /// The stored numbers, or the stored codes.
    fn view(self) -> View<'a, D> {
        match self {
            Self::Float(view) => view,
            Self::Nf4(weight) => weight.codes,
        }
    }
}

/// A factor, stored by rows.
#[derive(Debug)]
pub struct Matrix<'a, D: Device> {
    /// Elements of the matrix, or of its transpose if `transposed` is set.
    pub elements: Elements<'a, D>,
    /// Number of elements from the start of a stored row to the start of the next.
    pub stride: usize,
    /// Whether the transpose is stored.
    pub transposed: bool,
}

impl<D: Device> Clone for Matrix<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Matrix<'_, D> {}

impl<'a, D: Device> Matrix<'a, D> {
    /// A matrix whose rows of `stride` elements lie one after the other.
    pub fn rows(elements: View<'a, D>, stride: usize) -> Self {
        Self::stored(Elements::Float(elements), stride)
    }

    /// The same for any stored elements.
    pub fn stored(elements: Elements<'a, D>, stride: usize) -> Self {
        Self {
            elements,
            stride,
            transposed: false,
        }
    }

    /// The transpose of the matrix, in the same memory.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }
}

/// A result, stored by rows; see [`Matrix`].
#[derive(Debug)]
pub struct MatrixMut<'a, D: Device> {
    /// Elements of the matrix, or of its transpose if `transposed` is set. Elements between rows
    /// keep their values.
    pub elements: ViewMut<'a, D>,
    /// Number of elements from the start of a stored row to the start of the next.
    pub stride: usize,
    /// Whether the transpose is stored.
    pub transposed: bool,
}

impl<'a, D: Device> MatrixMut<'a, D> {
    /// A matrix whose rows of `stride` elements lie one after the other.
    pub fn rows(elements: ViewMut<'a, D>, stride: usize) -> Self {
        Self {
            elements,
            stride,
            transposed: false,
        }
    }

    /// The transpose of the matrix, in the same memory.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }
}

/// Values that a product is added to.
#[derive(Debug)]
pub enum Start<'a, D: Device> {
    /// Zeros: the result is overwritten, and its contents do not matter.
    Zero,
    /// The contents of the result.
    Result,
    /// f32 `[n]`, the same values for every row.
    Bias(View<'a, D>),
}

impl<D: Device> Clone for Start<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Start<'_, D> {}

/// `c = start + alpha · dropout(a)·b`.
#[derive(Debug)]
pub struct Args<'a, D: Device> {
    /// `[m, k]`, of a type of activations; the product is computed in this type.
    pub a: Matrix<'a, D>,
    /// Dropout of the rows of `a` as they are stored.
    pub dropout: Option<Dropout<'a, D>>,
    /// `[k, n]`; elements of another type than that of `a` are rounded to it first.
    pub b: Matrix<'a, D>,
    /// Factor of the product.
    pub alpha: f32,
    /// Values that the product is added to.
    pub start: Start<'a, D>,
    /// `[m, n]`, f32 or of the type of `a`.
    pub c: MatrixMut<'a, D>,
    /// Number of rows of the result.
    pub m: usize,
    /// Number of columns of the result.
    pub n: usize,
    /// Number of terms of each sum.
    pub k: usize,
}

impl<'a, D: Device> Args<'a, D> {
    /// `c = a·b` for the sizes `(m, n, k)`.
    pub fn new(
        a: Matrix<'a, D>,
        b: Matrix<'a, D>,
        c: MatrixMut<'a, D>,
        (m, n, k): (usize, usize, usize),
    ) -> Self {
        Self {
            a,
            dropout: None,
            b,
            alpha: 1.0,
            start: Start::Zero,
            c,
            m,
            n,
            k,
        }
    }
}

/// `x = before(a)·down` and `c = start + alpha · a·b + scale · after(x·up)`: a product with a second
/// one through a narrow intermediate `x`, such as a linear layer with its adapter.
#[derive(Debug)]
pub struct Through<'a, D: Device> {
    /// `[m, k]`, of a type of activations; the products are computed in this type.
    pub a: View<'a, D>,
    /// `[k, n]`; elements of another type than that of `a` are rounded to it first.
    pub b: Matrix<'a, D>,
    /// Factor of `a·b`.
    pub alpha: f32,
    /// Dropout of `a` before `down`.
    pub before: Option<Dropout<'a, D>>,
    /// `[k, rank]`, rounded like `b`.
    pub down: Matrix<'a, D>,
    /// Overwritten, f32 `[m, rank]`; rounded like `b` before it is multiplied.
    pub x: ViewMut<'a, D>,
    /// `[rank, n]`, rounded like `b`.
    pub up: Matrix<'a, D>,
    /// Factor of `x·up`.
    pub scale: f32,
    /// Dropout of `x·up`.
    pub after: Option<Dropout<'a, D>>,
    /// Values that the products are added to.
    pub start: Start<'a, D>,
    /// `[m, n]`, of the type of `a`.
    pub c: ViewMut<'a, D>,
    /// Number of rows of the result.
    pub m: usize,
    /// Number of columns of the result.
    pub n: usize,
    /// Number of terms of each sum of `a·b`.
    pub k: usize,
    /// Number of columns of `x`.
    pub rank: usize,
}

/// `sums[j] += Σ_i rows[i, j]`: a product with ones.
#[derive(Debug)]
pub struct ColumnSums<'a, D: Device> {
    /// `[m, n]`, of a type of activations.
    pub rows: View<'a, D>,
    /// Added into, f32 `[n]`.
    pub sums: ViewMut<'a, D>,
    /// Number of rows.
    pub m: usize,
    /// Number of columns.
    pub n: usize,
}

/// `c = dropout(term)`, or `c += dropout(term)`.
#[derive(Debug)]
pub struct DroppedTerm<'a, D: Device> {
    /// f32 `[m, n]`.
    pub term: View<'a, D>,
    /// Dropout of the rows of `term`.
    pub dropout: Dropout<'a, D>,
    /// `[m, n]`, of a type of activations.
    pub c: ViewMut<'a, D>,
    /// Whether `c` is added into; otherwise it is overwritten.
    pub accumulate: bool,
    /// Number of rows.
    pub m: usize,
    /// Number of columns.
    pub n: usize,
}

/// Elements of a factor in the type of a product.
#[derive(Debug)]
pub enum Prepared<'a, D: Device> {
    /// The stored elements, which a product reads without a copy.
    Stored(View<'a, D>),
    /// A copy in working memory, rounded to nearest, ties to even.
    Copy(Scratch<'a, D>),
}

impl<D: Device> Prepared<'_, D> {
    /// The elements.
    pub fn view(&self) -> View<'_, D> {
        match self {
            Self::Stored(view) => *view,
            Self::Copy(copy) => copy.view(),
        }
    }
}

/// Products with f32 sums of operands that are all f32 or all bf16.
///
/// With `a` stored by rows, the bits of a row of `c` depend on that row of `a` alone, not on the
/// number of other rows or its place among them; on GPUs this holds under the condition that
/// [`Cuda::matmul`](tightrope_device::Cuda::matmul) states. On the CPU they depend on the number of
/// threads neither.
///
/// On GPUs, operands of another type than that of `a` are copied to working memory, and so are 64
/// MiB of rows at a time if there is dropout. The smaller contribution, through `x`, is written
/// first and the larger added to it, so that the larger number is rounded once only.
pub trait Product: Device {
    /// Writes `c`, or adds into it.
    fn product(&self, args: Checked<Args<'_, Self>>) -> Result<(), KernelError>;
    /// Writes `x`, and writes `c` or adds into it.
    fn product_through(&self, args: Checked<Through<'_, Self>>) -> Result<(), KernelError>;
    /// Adds into `sums`, in an order that depends on the sizes alone.
    fn column_sums(&self, args: Checked<ColumnSums<'_, Self>>) -> Result<(), KernelError>;
    /// Writes `c`, or adds into it.
    fn dropped_term(&self, args: Checked<DroppedTerm<'_, Self>>) -> Result<(), KernelError>;
    /// Rounds the first `len` elements of a left factor to a type of activations.
    fn rounded<'a>(
        &'a self,
        elements: View<'a, Self>,
        len: usize,
        dtype: DType,
    ) -> Result<Prepared<'a, Self>, KernelError> {
        self.prepare(elements, len, dtype)
    }
    /// Rounds the first `len` elements of a right factor to the type of a product once, for several
    /// products with it. A device that reads other types without a copy returns the elements as
    /// they are.
    fn prepare<'a>(
        &'a self,
        elements: View<'a, Self>,
        len: usize,
        dtype: DType,
    ) -> Result<Prepared<'a, Self>, KernelError>;
}

/// Number of elements from the first to the last of `rows` rows of `columns` elements.
fn span(
    operand: &'static str,
    (rows, columns): (usize, usize),
    stride: usize,
) -> Result<usize, KernelError> {
    if rows == 0 || columns == 0 {
        return Ok(0);
    }
    if stride < columns && rows > 1 {
        return Err(KernelError::TooShort {
            operand,
            needed: columns,
            got: stride,
        });
    }
    let before = product(operand, &[rows - 1, stride])?;
    before
        .checked_add(columns)
        .map_or_else(|| product(operand, &[usize::MAX, 2]), Ok)
}

/// Rows and columns as stored.
fn stored(transposed: bool, (rows, columns): (usize, usize)) -> (usize, usize) {
    match transposed {
        true => (columns, rows),
        false => (rows, columns),
    }
}

impl<'a, D: Device> Matrix<'a, D> {
    /// Number of elements from the first to the last of a matrix of this shape.
    fn span(&self, operand: &'static str, shape: (usize, usize)) -> Result<usize, KernelError> {
        span(operand, stored(self.transposed, shape), self.stride)
    }

    /// Checks a matrix of this shape; of type `expected`, or of any that is stored.
    fn check(
        &self,
        operands: &mut Operands<'a, D>,
        operand: &'static str,
        shape: (usize, usize),
        expected: Option<DType>,
    ) -> Result<(), KernelError> {
        let len = self.span(operand, shape)?;
        match self.elements {
            Elements::Float(view) => {
                let dtype = match expected {
                    Some(dtype) => dtype,
                    None => operands.float(operand, view)?,
                };
                operands.at_least(operand, view, dtype, &[len])
            }
            Elements::Nf4(weight) => weight.check(operands, len),
        }
    }
}

/// Checks the values that a product is added to, and the type of its result.
fn check_result<'a, D: Device>(
    operands: &mut Operands<'a, D>,
    start: &Start<'a, D>,
    c: View<'a, D>,
    dtypes: &[DType],
    n: usize,
    len: usize,
) -> Result<(), KernelError> {
    if let Start::Bias(bias) = start {
        operands.exact("bias", *bias, &[n])?;
    }
    let dtype = dtypes.iter().find(|dtype| **dtype == c.dtype());
    operands.at_least("c", c, *dtype.unwrap_or(&dtypes[0]), &[len])
}

impl<D: Device> Check for Args<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let (m, n, k) = (self.m, self.n, self.k);
        let dtype = operands.activation("a", self.a.elements.view())?;
        self.a.check(operands, "a", (m, k), Some(dtype))?;
        let (rows, _) = stored(self.a.transposed, (m, k));
        check_dropout(operands, &self.dropout, rows)?;
        let (_, columns) = stored(self.a.transposed, (m, k));
        if self.dropout.is_some() && self.a.stride != columns {
            return Err(KernelError::Form {
                operand: "a",
                rule: "dropout takes rows without gaps between them",
            });
        }
        self.b.check(operands, "b", (k, n), None)?;
        let c = &self.c;
        if c.transposed && matches!(self.start, Start::Bias(_)) {
            return Err(KernelError::Form {
                operand: "c",
                rule: "a transposed result cannot start from a bias",
            });
        }
        let len = span("c", stored(c.transposed, (m, n)), c.stride)?;
        let dtypes = [DType::F32, dtype];
        check_result(operands, &self.start, c.elements.as_view(), &dtypes, n, len)
    }
}

impl<D: Device> Check for Through<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let (m, n, k, rank) = (self.m, self.n, self.k, self.rank);
        let dtype = operands.activation("a", self.a)?;
        operands.at_least("a", self.a, dtype, &[m, k])?;
        self.b.check(operands, "b", (k, n), None)?;
        check_dropout(operands, &self.before, m)?;
        self.down.check(operands, "down", (k, rank), None)?;
        operands.at_least("x", self.x.as_view(), DType::F32, &[m, rank])?;
        self.up.check(operands, "up", (rank, n), None)?;
        check_dropout(operands, &self.after, m)?;
        let len = product("c", &[m, n])?;
        check_result(operands, &self.start, self.c.as_view(), &[dtype], n, len)
    }
}

impl<D: Device> Check for DroppedTerm<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let shape = [self.m, self.n];
        operands.at_least("term", self.term, DType::F32, &shape)?;
        check_dropout(operands, &Some(self.dropout), self.m)?;
        let dtype = operands.activation("c", self.c.as_view())?;
        operands.at_least("c", self.c.as_view(), dtype, &shape)
    }
}

impl<D: Device> Check for ColumnSums<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dtype = operands.activation("rows", self.rows)?;
        operands.at_least("rows", self.rows, dtype, &[self.m, self.n])?;
        operands.exact("sums", self.sums.as_view(), &[self.n])
    }
}
