//! Stored elements in the type that a product wants: themselves, or a copy in working memory.

use super::kernel::Cast;
use crate::{
    KernelError,
    check::{activation, at_least},
    nf4,
};
use tightrope_device::{
    Cuda, DType, Tensor,
    cuda::{Held, Input, Launch, Matrix, Output, Scratch},
};

const THREADS: u32 = 256;

/// Overwrites the first `elements` elements of `to` with those of `from`, rounded to nearest, ties to
/// even. Both are floating-point numbers, of different types.
pub fn cast(
    cuda: &Cuda,
    from: &Tensor<Cuda>,
    to: &mut Tensor<Cuda>,
    elements: usize,
) -> Result<(), KernelError> {
    at_least("from", from, activation("from", from)?, &[elements])?;
    let dtype = activation("to", to)?;
    at_least("to", to, dtype, &[elements])?;
    // SAFETY: both have so many elements.
    unsafe { issue(cuda, from, Output::of(to), dtype, elements) }
}

/// # Safety
/// `from` and `to` have at least `elements` elements, those of `to` of type `dtype`.
unsafe fn issue(
    cuda: &Cuda,
    from: &Tensor<Cuda>,
    to: Output<'_>,
    dtype: DType,
    elements: usize,
) -> Result<(), KernelError> {
    let kernel = Cast {
        from: Input::of(from),
        to,
        elements: elements as u64,
    };
    let variant = [from.dtype().name(), dtype.name()];
    // Of a thread: 16 bytes of the wider type.
    let each = 16 / from.dtype().size().max(dtype.size());
    let blocks = elements.div_ceil(THREADS as usize * each);
    let launch = Launch::linear(blocks, THREADS)?;
    // SAFETY: the caller answers for it.
    Ok(unsafe { kernel.launch(cuda, &variant, launch) }?)
}

/// What is to be read as elements of `dtype`, with room for the copy if it is stored otherwise.
pub(crate) enum Source<'a> {
    AsIs(&'a Tensor<Cuda>),
    Copied {
        stored: Stored<'a>,
        len: usize,
        dtype: DType,
        copy: Scratch,
    },
}

/// What a copy is made from.
pub(crate) enum Stored<'a> {
    Float(&'a Tensor<Cuda>),
    Nf4(nf4::Weight<'a, Cuda>),
}

/// What is read: it must be kept until the last kernel that reads it is issued.
pub(crate) enum Converted<'a> {
    AsIs(&'a Tensor<Cuda>),
    Copied(Held<'a>, DType),
}

impl<'a> Source<'a> {
    /// The first `len` elements of `tensor`; the copy lies in the piece of scratch memory called `name`.
    pub(crate) fn new(
        cuda: &Cuda,
        name: &'static str,
        tensor: &'a Tensor<Cuda>,
        len: usize,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        if tensor.dtype() == dtype {
            return Ok(Self::AsIs(tensor));
        }
        Self::copied(cuda, name, Stored::Float(tensor), len, dtype)
    }

    /// The first `len` elements of a weight in NF4, which is always copied.
    pub(crate) fn nf4(
        cuda: &Cuda,
        name: &'static str,
        weight: nf4::Weight<'a, Cuda>,
        len: usize,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        Self::copied(cuda, name, Stored::Nf4(weight), len, dtype)
    }

    fn copied(
        cuda: &Cuda,
        name: &'static str,
        stored: Stored<'a>,
        len: usize,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        Ok(Self::Copied {
            stored,
            len,
            dtype,
            copy: cuda.scratch(name, len * dtype.size())?,
        })
    }

    #[cfg(test)]
    pub(super) fn is_copied(&self) -> bool {
        matches!(self, Self::Copied { .. })
    }

    /// Issues the conversion, if one is needed: rounded to nearest, ties to even.
    pub(crate) fn convert(&self, cuda: &Cuda) -> Result<Converted<'_>, KernelError> {
        let (stored, len, dtype, copy) = match self {
            Self::AsIs(tensor) => return Ok(Converted::AsIs(tensor)),
            Self::Copied {
                stored,
                len,
                dtype,
                copy,
            } => (stored, *len, *dtype, copy),
        };
        let mut copy = copy.hold();
        match stored {
            Stored::Float(tensor) => {
                // SAFETY: the tensor has at least `len` elements, as the caller has checked, and the
                // copy was made for as many.
                unsafe { issue(cuda, tensor, copy.output(), dtype, len) }?;
            }
            Stored::Nf4(weight) => {
                // SAFETY: as above, of the weight.
                unsafe { nf4::dequantize(cuda, *weight, copy.output(), dtype, len) }?;
            }
        }
        Ok(Converted::Copied(copy, dtype))
    }
}

impl Converted<'_> {
    /// As rows of `row` elements.
    pub(crate) fn matrix(&self, row: usize) -> Matrix<'_> {
        match self {
            Self::AsIs(tensor) => Matrix::of(tensor, row),
            Self::Copied(copy, dtype) => Matrix::scratch(copy, *dtype, row),
        }
    }
}
