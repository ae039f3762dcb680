//! Errors of devices and tensors.

use crate::DType;

/// Error of a device or tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device has not enough memory.
    #[error("no memory for {bytes} bytes on {device}")]
    OutOfMemory {
        /// Number of bytes requested.
        bytes: usize,
        /// Name of the device.
        device: String,
    },
    /// A range of rows or elements lies outside a view.
    #[error("{start}..{end} lies outside a tensor of {len}")]
    OutOfRange {
        /// First row or element.
        start: usize,
        /// One past the last row or element.
        end: usize,
        /// Number of rows or elements.
        len: usize,
    },
    /// A tensor was requested from a range of an arena that is taken or out of bounds.
    #[error("bytes {offset}..{} of an arena of {len} bytes are taken or out of bounds", offset.saturating_add(*bytes))]
    Taken {
        /// Offset of the first byte.
        offset: usize,
        /// Number of bytes.
        bytes: usize,
        /// Size of the arena.
        len: usize,
    },
    /// Tensors that should be joined do not lie one after the other.
    #[error("tensors that are not adjacent cannot be joined")]
    Apart,
    /// Two operands lie on different devices.
    #[error("expected a tensor on {expected}, got one on {got}")]
    OtherDevice {
        /// Device that computes.
        expected: String,
        /// Device of the operand.
        got: String,
    },
    /// A shape has more dimensions than a tensor can have.
    #[error("shape {shape:?} has more than {} dimensions", crate::Shape::MOST)]
    TooManyDimensions {
        /// The shape.
        shape: Vec<usize>,
    },
    /// A tensor has another type than the operation expects.
    #[error("expected a tensor of {expected}, got {got}")]
    WrongDType {
        /// Expected type.
        expected: DType,
        /// Type of the tensor.
        got: DType,
    },
    /// The number of elements does not fit the shape.
    #[error("shape {shape:?} needs {needed} elements, got {got}")]
    WrongLength {
        /// The shape.
        shape: Vec<usize>,
        /// Number of elements of the shape.
        needed: usize,
        /// Number of given elements.
        got: usize,
    },
    /// The product of the dimensions overflows.
    #[error("shape {shape:?} of {dtype} has more bytes than an address can name")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
        /// Element type.
        dtype: DType,
    },
    /// The thread pool could not be created.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Number of threads requested.
        threads: usize,
        /// Error of the system.
        reason: String,
    },
    /// The GPU does not exist or cannot be used.
    #[error("cannot use CUDA device {ordinal}: {reason}")]
    NoCuda {
        /// Number of the GPU.
        ordinal: usize,
        /// What is missing.
        reason: String,
    },
    /// The CUDA driver or one of its libraries reports an error.
    #[error("{what}: {reason}")]
    Cuda {
        /// The failed operation: a kernel, or a kind of operation.
        what: String,
        /// Error of the driver.
        reason: String,
    },
    /// An operation has no kernel for these element types or sizes.
    #[error("`{operation}` has no kernel for {variant}")]
    NoKernel {
        /// Name of the operation.
        operation: &'static str,
        /// Element types, index width and sizes.
        variant: String,
    },
}
