//! What can go wrong below the operations.

use crate::DType;

/// Errors of devices and tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device has no room.
    #[error("no memory for {bytes} bytes on {device}")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// The device's name.
        device: String,
    },
    /// A range lies outside its buffer.
    #[error("bytes {offset}..{} lie outside a buffer of {len} bytes", offset.saturating_add(*bytes))]
    OutOfRange {
        /// First byte.
        offset: usize,
        /// Number of bytes.
        bytes: usize,
        /// Size of the buffer.
        len: usize,
    },
    /// A tensor holds another type than the operation expects.
    #[error("expected a tensor of {expected}, got {got}")]
    WrongDType {
        /// What was asked for.
        expected: DType,
        /// What it holds.
        got: DType,
    },
    /// The number of elements does not fit the shape.
    #[error("shape {shape:?} needs {needed} elements, got {got}")]
    WrongLength {
        /// The shape.
        shape: Vec<usize>,
        /// Elements that the shape has.
        needed: usize,
        /// Elements that were given.
        got: usize,
    },
    /// The product of the dimensions overflows.
    #[error("shape {shape:?} of {dtype} has more bytes than an address can name")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
        /// Its element type.
        dtype: DType,
    },
    /// A thread pool could not be made.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
    /// There is no such GPU, or none that can be used.
    #[error("cannot use CUDA device {ordinal}: {reason}")]
    NoCuda {
        /// Its number.
        ordinal: usize,
        /// What is missing.
        reason: String,
    },
    /// The CUDA driver or one of its libraries refused.
    #[error("{what}: {reason}")]
    Cuda {
        /// What was being done: a kernel, or a kind of operation.
        what: String,
        /// What the driver said.
        reason: String,
    },
    /// An operation has no kernel for these element types or sizes.
    #[error("`{operation}` has no kernel for {variant}")]
    NoKernel {
        /// The operation.
        operation: &'static str,
        /// Element types, index width and sizes.
        variant: String,
    },
}
