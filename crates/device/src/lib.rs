//! Devices, element types, buffers and tensors.
//!
//! A [`Device`] owns memory; a [`Tensor`] is a typed, shaped piece of it. Operations are traits of
//! the crates above (`trait RmsNorm: Device`), so a new device joins by implementing them and no
//! model changes. The CPU is the embedded default.
#![deny(missing_docs)]

mod blocks;
mod cpu;
pub mod cuda;
mod dtype;
mod error;
mod index;
mod peak;
mod tensor;
mod tiles;
mod vectorize;

pub use blocks::{Rows, Split, rows};
pub use cpu::Cpu;
pub use cuda::Cuda;
pub use dtype::{DType, Element};
pub use error::DeviceError;
pub use index::IndexWidth;
pub use peak::Flops;
pub use tensor::Tensor;
#[cfg(target_arch = "x86_64")]
pub use vectorize::{has_avx2_fma, has_avx512};

use std::{fmt, ops::Range};

/// Memory and a place to compute. Cloning gives another handle of the same device.
///
/// Offsets and sizes are in bytes. Every method checks its ranges and returns
/// [`DeviceError::OutOfRange`] instead of touching memory outside them.
pub trait Device: Clone + fmt::Debug + Send + Sync + 'static {
    /// Memory of this device, aligned to at least 64 bytes.
    type Buffer: fmt::Debug + Send + Sync + 'static;

    /// A name for people: "cpu (2 threads, AMX)".
    fn name(&self) -> String;
    /// New memory, zeroed.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer, DeviceError>;
    /// Size of `buffer`.
    fn bytes(buffer: &Self::Buffer) -> usize;
    /// Copies `source` from the host into `buffer` at `offset`.
    fn write(
        &self,
        buffer: &mut Self::Buffer,
        offset: usize,
        source: &[u8],
    ) -> Result<(), DeviceError>;
    /// Copies from `buffer` at `offset` to the host.
    fn read(
        &self,
        buffer: &Self::Buffer,
        offset: usize,
        destination: &mut [u8],
    ) -> Result<(), DeviceError>;
    /// Copies `bytes` between two buffers of this device.
    fn copy(
        &self,
        source: &Self::Buffer,
        source_offset: usize,
        destination: &mut Self::Buffer,
        destination_offset: usize,
        bytes: usize,
    ) -> Result<(), DeviceError>;
    /// Sets `bytes` bytes to zero.
    fn zero(
        &self,
        buffer: &mut Self::Buffer,
        offset: usize,
        bytes: usize,
    ) -> Result<(), DeviceError>;
    /// Waits until everything that was asked of the device has happened.
    fn synchronize(&self) -> Result<(), DeviceError>;
    /// Most bytes that were allocated at once on a device with memory of its own; `None` where
    /// memory is the process's.
    fn peak_bytes(&self) -> Option<usize> {
        None
    }
}

/// The range of `bytes` bytes from `offset` on, if it lies inside `len` bytes.
fn inside(offset: usize, bytes: usize, len: usize) -> Result<Range<usize>, DeviceError> {
    let end = offset.checked_add(bytes).filter(|&end| end <= len);
    end.map(|end| offset..end)
        .ok_or(DeviceError::OutOfRange { offset, bytes, len })
}
