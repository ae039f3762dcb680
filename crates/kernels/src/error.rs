//! Errors of arguments that do not fit each other.

use tightrope_device::{DType, DeviceError};

/// Errors of operations; each carries the values that disagreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A parameter has another shape than the other arguments require.
    #[error("`{operand}`: expected {expected:?}, got {got:?}")]
    Shape {
        /// Name of the argument.
        operand: &'static str,
        /// Shape that fits the other arguments.
        expected: Vec<usize>,
        /// Shape of the argument.
        got: Vec<usize>,
    },
    /// A buffer is too short for the operation.
    #[error("`{operand}`: needs {needed} elements, has {got}")]
    TooShort {
        /// Name of the argument.
        operand: &'static str,
        /// Number of elements that the operation touches.
        needed: usize,
        /// Number of elements of the buffer.
        got: usize,
    },
    /// An argument has an element type that the operation does not support there.
    #[error("`{operand}`: {got} is not supported here, expected {expected}")]
    DType {
        /// Name of the argument.
        operand: &'static str,
        /// Supported types.
        expected: String,
        /// Type of the argument.
        got: DType,
    },
    /// The offsets need 64 bits, but 32 were requested.
    #[error("offsets of this operation do not fit 32 bits")]
    TooNarrow,
    /// An operand lies on another device than the operands before it.
    #[error("`{operand}` lies on {got}, other operands on {expected}")]
    TwoDevices {
        /// Name of the argument.
        operand: &'static str,
        /// Device of the other operands.
        expected: String,
        /// Device of the argument.
        got: String,
    },
    /// The operands lie on another device than the one that should compute.
    #[error("the operands lie on {got}, but {computes} should compute")]
    OtherDevice {
        /// Device that should compute.
        computes: String,
        /// Device of the operands.
        got: String,
    },
    /// An id lies outside the table that it indexes.
    #[error("`{operand}[{index}]` is {value}, outside 0..{bound}")]
    Index {
        /// Name of the argument.
        operand: &'static str,
        /// Index of the id.
        index: usize,
        /// Value of the id.
        value: i64,
        /// One more than the largest allowed id.
        bound: usize,
    },
    /// A number has a value that has no meaning for the operation.
    #[error("`{operand}` is {value}: {rule}")]
    Value {
        /// Name of the argument.
        operand: &'static str,
        /// The given value.
        value: f64,
        /// Rule that the value must obey.
        rule: &'static str,
    },
    /// An operand is stored in a form that the operation does not support.
    #[error("`{operand}`: {rule}")]
    Form {
        /// Name of the argument.
        operand: &'static str,
        /// Rule that the form must obey.
        rule: &'static str,
    },
    /// The device reports an error.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
