//! What can go wrong with rotations and their frequencies.

use tightrope_device::{DType, DeviceError};

/// Errors of rotary embeddings; each carries the values that disagreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RopeError {
    /// A buffer is shorter than what is to be read from or written to it.
    #[error("`{operand}`: needs {needed} elements, has {got}")]
    TooShort {
        /// Name of the argument.
        operand: &'static str,
        /// Elements that the rotation touches.
        needed: usize,
        /// Elements that it has.
        got: usize,
    },
    /// An argument has an element type that the rotation does not take.
    #[error("`{operand}`: expected f32, got {got}")]
    DType {
        /// Name of the argument.
        operand: &'static str,
        /// Its type.
        got: DType,
    },
    /// A number has a value for which the rotation has no meaning.
    #[error("`{name}` is {value}: {rule}")]
    Value {
        /// Name of the parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
