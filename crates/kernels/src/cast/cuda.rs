//! A tensor in another type: itself, or a copy in working memory.

use super::kernel::Cast;
use crate::{
    KernelError,
    check::{activation, at_least},
};
use tightrope_device::{
    Cuda, DType, Tensor,
    cuda::{Held, Input, Launch, Matrix, Output, Scratch},
};

const THREADS: u32 = 256;
/// Elements of a thread.
const EACH: usize = 8;

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
    let blocks = elements.div_ceil(THREADS as usize * EACH);
    let launch = Launch::linear(blocks, THREADS)?;
    // SAFETY: the caller answers for it.
    Ok(unsafe { kernel.launch(cuda, &variant, launch) }?)
}

/// What is to be read as elements of `dtype`, with room for the copy if it is stored otherwise.
pub(crate) struct Source<'a> {
    tensor: &'a Tensor<Cuda>,
    len: usize,
    dtype: DType,
    copy: Option<Scratch>,
}

/// What is read: it must be kept until the last kernel that reads it is issued.
pub(crate) struct Converted<'a> {
    tensor: &'a Tensor<Cuda>,
    dtype: DType,
    copy: Option<Held<'a>>,
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
        let copy = match tensor.dtype() == dtype {
            true => None,
            false => Some(cuda.scratch(name, len * dtype.size())?),
        };
        Ok(Self {
            tensor,
            len,
            dtype,
            copy,
        })
    }

    #[cfg(test)]
    pub(super) fn is_copied(&self) -> bool {
        self.copy.is_some()
    }

    /// Issues the conversion, if one is needed: rounded to nearest, ties to even.
    pub(crate) fn convert(&self, cuda: &Cuda) -> Result<Converted<'_>, KernelError> {
        let mut copy = self.copy.as_ref().map(Scratch::hold);
        if let Some(copy) = &mut copy {
            // SAFETY: the tensor has at least `len` elements, as the caller has checked, and the
            // copy was made for as many.
            unsafe { issue(cuda, self.tensor, copy.output(), self.dtype, self.len) }?;
        }
        Ok(Converted {
            tensor: self.tensor,
            dtype: self.dtype,
            copy,
        })
    }
}

impl Converted<'_> {
    /// As rows of `row` elements.
    pub(crate) fn matrix(&self, row: usize) -> Matrix<'_> {
        match &self.copy {
            Some(copy) => Matrix::scratch(copy, self.dtype, row),
            None => Matrix::of(self.tensor, row),
        }
    }
}
