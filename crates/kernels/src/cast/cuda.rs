//! A tensor in another type: itself, or a copy in working memory.

use super::kernel::Cast;
use crate::KernelError;
use tightrope_device::{
    Cuda, DType, Tensor,
    cuda::{Held, Input, Launch, Matrix, Scratch},
};

const THREADS: u32 = 256;
/// Elements of a thread.
const EACH: usize = 8;

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
            let kernel = Cast {
                from: Input::of(self.tensor),
                to: copy.output(),
                elements: self.len as u64,
            };
            let variant = [self.tensor.dtype().name(), self.dtype.name()];
            let blocks = self.len.div_ceil(THREADS as usize * EACH);
            // SAFETY: the tensor has at least `len` elements, as the caller has checked, and the
            // copy was made for as many.
            unsafe { kernel.launch(cuda, &variant, Launch::linear(blocks, THREADS)?) }?;
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
