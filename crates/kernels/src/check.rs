//! Arguments that are proved to fit each other.

use crate::KernelError;
use std::ops::Deref;
use tightrope_device::{DType, Device, View};

/// Arguments of an operation.
pub trait Check: Sized {
    /// Device of the operands.
    type Device: Device;

    /// Passes every operand to `operands`; returns an error for the first that does not fit.
    fn check_operands<'a>(
        &'a self,
        operands: &mut Operands<'a, Self::Device>,
    ) -> Result<(), KernelError>;

    /// Returns an error if the arguments do not fit.
    fn check(&self) -> Result<(), KernelError> {
        self.check_operands(&mut Operands { device: None })
    }

    /// Checks the arguments and returns the proof that implementations take.
    fn checked(self) -> Result<Checked<Self>, KernelError> {
        let mut operands = Operands { device: None };
        self.check_operands(&mut operands)?;
        Ok(Checked {
            device: operands.device.cloned(),
            args: self,
        })
    }
}

/// Arguments that have passed [`Check::check`]. Only [`Check::checked`] makes them.
#[derive(Debug)]
pub struct Checked<A: Check> {
    args: A,
    device: Option<A::Device>,
}

impl<A: Check> Checked<A> {
    /// Returns the arguments to an implementation. Returns an error if they lie on another device
    /// than the one that computes.
    pub fn on(self, device: &A::Device) -> Result<A, KernelError> {
        match self.device {
            Some(got) if !got.shares_memory_with(device) => Err(KernelError::OtherDevice {
                computes: device.name(),
                got: got.name(),
            }),
            _ => Ok(self.args),
        }
    }
}

impl<A: Check> Deref for Checked<A> {
    type Target = A;
    fn deref(&self) -> &A {
        &self.args
    }
}

/// The operands checked so far: all lie on the device of the first.
#[derive(Debug)]
pub struct Operands<'a, D: Device> {
    device: Option<&'a D>,
}

impl<'a, D: Device> Operands<'a, D> {
    /// Checks any operand: it must lie on the device of the others.
    pub(crate) fn any(
        &mut self,
        operand: &'static str,
        view: View<'a, D>,
    ) -> Result<(), KernelError> {
        let first = *self.device.get_or_insert(view.device());
        match first.shares_memory_with(view.device()) {
            true => Ok(()),
            false => Err(KernelError::TwoDevices {
                operand,
                expected: first.name(),
                got: view.device().name(),
            }),
        }
    }

    /// Checks a parameter: exactly this shape, f32.
    pub(crate) fn exact(
        &mut self,
        operand: &'static str,
        view: View<'a, D>,
        shape: &[usize],
    ) -> Result<(), KernelError> {
        self.any(operand, view)?;
        dtype(operand, view, DType::F32)?;
        shape_is(operand, view, shape)
    }

    /// Checks a stored weight: exactly this shape, any floating-point type.
    pub(crate) fn weight(
        &mut self,
        operand: &'static str,
        view: View<'a, D>,
        shape: &[usize],
    ) -> Result<(), KernelError> {
        self.float(operand, view)?;
        shape_is(operand, view, shape)
    }

    /// Checks the element type of stored numbers: any floating-point type.
    pub(crate) fn float(
        &mut self,
        operand: &'static str,
        view: View<'a, D>,
    ) -> Result<DType, KernelError> {
        self.any(operand, view)?;
        match view.dtype().is_float() {
            true => Ok(view.dtype()),
            false => Err(KernelError::DType {
                operand,
                expected: "f32, bf16 or f16".into(),
                got: view.dtype(),
            }),
        }
    }

    /// Checks the element type of an activation, which all activations of an operation share: a
    /// type that the device computes in.
    pub(crate) fn activation(
        &mut self,
        operand: &'static str,
        view: View<'a, D>,
    ) -> Result<DType, KernelError> {
        self.any(operand, view)?;
        if D::ACTIVATIONS.contains(&view.dtype()) {
            return Ok(view.dtype());
        }
        let names: Vec<_> = D::ACTIVATIONS.iter().map(|dtype| dtype.name()).collect();
        Err(KernelError::DType {
            operand,
            expected: format!("{} on {}", names.join(", "), view.device().name()),
            got: view.dtype(),
        })
    }

    /// Checks a buffer: at least the product of `dims` elements of type `expected`.
    pub(crate) fn at_least(
        &mut self,
        operand: &'static str,
        view: View<'a, D>,
        expected: DType,
        dims: &[usize],
    ) -> Result<(), KernelError> {
        self.any(operand, view)?;
        dtype(operand, view, expected)?;
        let needed = product(operand, dims)?;
        if view.len() < needed {
            return Err(KernelError::TooShort {
                operand,
                needed,
                got: view.len(),
            });
        }
        Ok(())
    }
}

/// Checks a decay or a weight: in [0, 1).
pub(crate) fn below_one(operand: &'static str, value: f64) -> Result<(), KernelError> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(KernelError::Value {
            operand,
            value,
            rule: "must be at least 0 and less than 1",
        }),
    }
}

/// Checks the number of an optimizer step.
pub(crate) fn step(step: u64) -> Result<(), KernelError> {
    match step {
        0 => Err(KernelError::Value {
            operand: "step",
            value: 0.0,
            rule: "is counted from 1",
        }),
        _ => Ok(()),
    }
}

/// Returns the product, or an error that names the operand if it overflows.
pub(crate) fn product(operand: &'static str, dims: &[usize]) -> Result<usize, KernelError> {
    dims.iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .ok_or(KernelError::TooShort {
            operand,
            needed: usize::MAX,
            got: 0,
        })
}

fn dtype<D: Device>(
    operand: &'static str,
    view: View<'_, D>,
    expected: DType,
) -> Result<(), KernelError> {
    if view.dtype() == expected {
        Ok(())
    } else {
        Err(KernelError::DType {
            operand,
            expected: expected.name().into(),
            got: view.dtype(),
        })
    }
}

fn shape_is<D: Device>(
    operand: &'static str,
    view: View<'_, D>,
    shape: &[usize],
) -> Result<(), KernelError> {
    if view.shape() == shape {
        Ok(())
    } else {
        Err(KernelError::Shape {
            operand,
            expected: shape.to_vec(),
            got: view.shape().to_vec(),
        })
    }
}
