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
    /// A range of rows or elements lies outside a view.
    #[error("{start}..{end} lies outside a tensor of {len}")]
    OutOfRange {
        /// First row or element.
        start: usize,
        /// One behind the last.
        end: usize,
        /// How many there are.
        len: usize,
    },
    /// A tensor was asked of an arena where there is another one, or no memory.
    #[error("bytes {offset}..{} of an arena of {len} bytes are taken or not there", offset.saturating_add(*bytes))]
    Taken {
        /// First byte.
        offset: usize,
        /// Number of bytes.
        bytes: usize,
        /// Size of the arena.
        len: usize,
    },
    /// Tensors that were to be joined do not lie one behind the other.
    #[error("tensors that do not lie one behind the other cannot be joined")]
    Apart,
    /// Two operands lie on two devices.
    #[error("expected a tensor on {expected}, got one on {got}")]
    OtherDevice {
        /// The device that computes.
        expected: String,
        /// The device of the operand.
        got: String,
    },
    /// A shape has more dimensions than a tensor can have.
    #[error("shape {shape:?} has more than {} dimensions", crate::Shape::MOST)]
    TooManyDimensions {
        /// The shape.
        shape: Vec<usize>,
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
