//! Arguments that do not fit each other.

use tightrope_device::{DType, DeviceError};

/// Errors of operations; each carries the values that disagreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A parameter has another shape than the other arguments say.
    #[error("`{operand}`: expected {expected:?}, got {got:?}")]
    Shape {
        /// Name of the argument.
        operand: &'static str,
        /// Shape that fits the other arguments.
        expected: Vec<usize>,
        /// Its shape.
        got: Vec<usize>,
    },
    /// A buffer is shorter than what is to be read from or written to it.
    #[error("`{operand}`: needs {needed} elements, has {got}")]
    TooShort {
        /// Name of the argument.
        operand: &'static str,
        /// Elements that the operation touches.
        needed: usize,
        /// Elements that it has.
        got: usize,
    },
    /// An argument has an element type that the operation does not take there.
    #[error("`{operand}`: {got} is not supported here, expected {expected}")]
    DType {
        /// Name of the argument.
        operand: &'static str,
        /// What is supported.
        expected: String,
        /// Its type.
        got: DType,
    },
    /// The offsets need 64 bits, and 32 were asked for.
    #[error("offsets of this operation do not fit 32 bits")]
    TooNarrow,
    /// An operand lies on another device than those before it.
    #[error("`{operand}` lies on {got}, other operands on {expected}")]
    TwoDevices {
        /// Name of the argument.
        operand: &'static str,
        /// The device of the others.
        expected: String,
        /// Its device.
        got: String,
    },
    /// The operands lie on another device than the one that was asked to compute.
    #[error("the operands lie on {got}, and {computes} was to compute")]
    OtherDevice {
        /// The device that was asked.
        computes: String,
        /// The device of the operands.
        got: String,
    },
    /// An id lies outside the table that it indexes.
    #[error("`{operand}[{index}]` is {value}, outside 0..{bound}")]
    Index {
        /// Name of the argument.
        operand: &'static str,
        /// Where it stands.
        index: usize,
        /// The id.
        value: i64,
        /// One more than the largest allowed.
        bound: usize,
    },
    /// A number has a value for which the operation has no meaning.
    #[error("`{operand}` is {value}: {rule}")]
    Value {
        /// Name of the argument.
        operand: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
