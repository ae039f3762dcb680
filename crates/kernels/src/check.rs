//! Arguments that have been proved to fit each other.

use crate::KernelError;
use std::ops::Deref;
use tightrope_device::{DType, Device, Tensor};

/// Arguments of an operation.
pub trait Check: Sized {
    /// What does not fit, if anything.
    fn check(&self) -> Result<(), KernelError>;

    /// The proof that implementations take.
    fn checked(self) -> Result<Checked<Self>, KernelError> {
        self.check()?;
        Ok(Checked(self))
    }
}

/// Arguments whose [`Check::check`] has passed. Only [`Check::checked`] makes one.
#[derive(Debug)]
pub struct Checked<A>(A);

impl<A> Checked<A> {
    /// The arguments, to be taken apart by an implementation.
    pub fn into_inner(self) -> A {
        self.0
    }
}

impl<A> Deref for Checked<A> {
    type Target = A;
    fn deref(&self) -> &A {
        &self.0
    }
}

/// The product, or an error that names the operand when it overflows.
pub(crate) fn product(operand: &'static str, dims: &[usize]) -> Result<usize, KernelError> {
    dims.iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .ok_or(KernelError::TooShort {
            operand,
            needed: usize::MAX,
            got: 0,
        })
}

/// A parameter: exactly this shape, f32.
pub(crate) fn exact<D: Device>(
    operand: &'static str,
    tensor: &Tensor<D>,
    shape: &[usize],
) -> Result<(), KernelError> {
    dtype(operand, tensor, DType::F32)?;
    shape_is(operand, tensor, shape)
}

/// A stored weight: exactly this shape, any floating-point type.
pub(crate) fn weight<D: Device>(
    operand: &'static str,
    tensor: &Tensor<D>,
    shape: &[usize],
) -> Result<(), KernelError> {
    float(operand, tensor)?;
    shape_is(operand, tensor, shape)
}

/// The element type of an activation, which all activations of an operation share.
pub(crate) fn activation<D: Device>(
    operand: &'static str,
    tensor: &Tensor<D>,
) -> Result<DType, KernelError> {
    float(operand, tensor)?;
    Ok(tensor.dtype())
}

fn float<D: Device>(operand: &'static str, tensor: &Tensor<D>) -> Result<(), KernelError> {
    if tensor.dtype().is_float() {
        return Ok(());
    }
    Err(KernelError::DType {
        operand,
        expected: "f32, bf16 or f16",
        got: tensor.dtype(),
    })
}

/// A buffer: at least the product of `dims` elements of `expected`.
pub(crate) fn at_least<D: Device>(
    operand: &'static str,
    tensor: &Tensor<D>,
    expected: DType,
    dims: &[usize],
) -> Result<(), KernelError> {
    dtype(operand, tensor, expected)?;
    let needed = product(operand, dims)?;
    if tensor.len() < needed {
        return Err(KernelError::TooShort {
            operand,
            needed,
            got: tensor.len(),
        });
    }
    Ok(())
}

fn dtype<D: Device>(
    operand: &'static str,
    tensor: &Tensor<D>,
    expected: DType,
) -> Result<(), KernelError> {
    if tensor.dtype() == expected {
        Ok(())
    } else {
        Err(KernelError::DType {
            operand,
            expected: expected.name(),
            got: tensor.dtype(),
        })
    }
}

fn shape_is<D: Device>(
    operand: &'static str,
    tensor: &Tensor<D>,
    shape: &[usize],
) -> Result<(), KernelError> {
    if tensor.shape() == shape {
        Ok(())
    } else {
        Err(KernelError::Shape {
            operand,
            expected: shape.to_vec(),
            got: tensor.shape().to_vec(),
        })
    }
}
