//! Provides elements in the type that a product needs: the stored elements, or a copy in working
//! memory.

use super::kernel;
use crate::{Check, Checked, KernelError, check::Operands, nf4};
use tightrope_device::{
    Cuda, DType, Device, Scratch, View, ViewMut,
    cuda::{Input, Launch, Matrix, Output},
};

const THREADS: u32 = 256;

/// Overwrites the first elements of `to` with those of `from`, rounded to nearest, ties to even. It
/// converts f32, bf16 or f16, the types of weights in files, to another type of f32 and bf16, the
/// types of products.
#[derive(Debug)]
pub struct Cast<'a> {
    /// Elements to read.
    pub from: View<'a, Cuda>,
    /// Elements to write.
    pub to: ViewMut<'a, Cuda>,
    /// Number of elements.
    pub elements: usize,
}

impl Check for Cast<'_> {
    type Device = Cuda;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, Cuda>) -> Result<(), KernelError> {
        let dtype = operands.float("from", self.from)?;
        operands.at_least("from", self.from, dtype, &[self.elements])?;
        let dtype = operands.activation("to", self.to.as_view())?;
        operands.at_least("to", self.to.as_view(), dtype, &[self.elements])
    }
}

/// Issues the conversion.
pub fn cast(cuda: &Cuda, args: Checked<Cast<'_>>) -> Result<(), KernelError> {
    let Cast { from, to, elements } = args.on(cuda)?;
    let variant = [from.dtype().name(), to.dtype().name()];
    // A thread converts 16 bytes of the wider type.
    let each = 16 / from.dtype().size().max(to.dtype().size());
    let blocks = elements.div_ceil(THREADS as usize * each);
    let launch = Launch::linear(blocks, THREADS)?;
    let kernel = kernel::Cast {
        from: Input::of(from),
        to: Output::of(to),
        elements: elements as u64,
    };
    // SAFETY: the check of the arguments proved that both have this many elements.
    Ok(unsafe { cuda.launch(kernel, &variant, launch) }?)
}

/// Elements in the type that a product needs. Keep them until the last kernel that reads them is
/// issued.
#[derive(Debug)]
pub(crate) enum Converted<'a> {
    /// The stored elements, which have that type.
    AsIs(View<'a, Cuda>),
    /// A copy, rounded to nearest, ties to even.
    Copied(Scratch<'a, Cuda>),
}

impl<'a> Converted<'a> {
    /// The first `len` elements of `view`.
    pub(crate) fn new(
        cuda: &'a Cuda,
        view: View<'a, Cuda>,
        len: usize,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        if view.dtype() == dtype {
            return Ok(Self::AsIs(view));
        }
        let mut copy = cuda.scratch(dtype, &[len])?;
        let args = Cast {
            from: view,
            to: copy.view_mut(),
            elements: len,
        };
        cast(cuda, args.checked()?)?;
        Ok(Self::Copied(copy))
    }

    /// The first `len` elements of a weight in NF4, which is always copied.
    pub(crate) fn nf4(
        cuda: &'a Cuda,
        weight: nf4::Weight<'a, Cuda>,
        len: usize,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let mut copy = cuda.scratch(dtype, &[len])?;
        let args = nf4::Dequantize {
            weight,
            y: copy.view_mut(),
            elements: len,
        };
        nf4::Nf4::nf4_dequantize(cuda, args.checked()?)?;
        Ok(Self::Copied(copy))
    }

    fn view(&self) -> View<'_, Cuda> {
        match self {
            Self::AsIs(view) => *view,
            Self::Copied(copy) => copy.view(),
        }
    }

    /// The elements as rows of `row` elements.
    pub(crate) fn matrix(&self, row: usize) -> Matrix<'_> {
        Matrix::of(self.view(), row)
    }
}
