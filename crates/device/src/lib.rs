//! Devices, element types, buffers and tensors.
#![doc = include_str!("../README.md")]
//!
//! A [`Device`] allocates memory; a [`Tensor`] owns a typed, shaped piece of it, which is an
//! allocation of its own or a range of an [`Arena`]; operations take a [`View`] or a [`ViewMut`] of
//! it. Operations are traits of higher crates (`trait RmsNorm: Device`), so a new device implements
//! these traits and no model changes. The CPU is always available.
#![deny(missing_docs)]

mod arena;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod dtype;
mod error;
mod index;
mod scratch;
mod shape;
mod tensor;
mod view;

pub use arena::{ALIGNMENT, Arena, reserved};
pub use cpu::{Cpu, Rows, Split, rows};
#[cfg(target_arch = "x86_64")]
pub use cpu::{has_avx2_fma, has_avx512};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use dtype::{DType, Element};
pub use error::DeviceError;
pub use index::IndexWidth;
pub use scratch::{Pool, Scratch};
pub use shape::Shape;
pub use tensor::Tensor;
pub use view::{View, ViewMut};

use std::fmt;

/// Memory of a device.
///
/// # Safety
/// As long as the buffer lives, its bytes from [`Buffer::start`] on are memory of its device, are
/// aligned to 64 bytes, and are touched only by users of the buffer. On the CPU they are
/// initialised.
pub unsafe trait Buffer: fmt::Debug + Send + Sync + 'static {
    /// Address of the first byte on the device.
    fn start(&self) -> *mut u8;
}

/// Memory and a place to compute. Cloning gives another handle of the same device.
///
/// # Safety
/// [`Device::allocate`] returns a buffer with at least the requested bytes, and [`Device::pool`]
/// returns a pool of this device that no device of another type hands out: tensors, views and
/// working memory rely on both.
pub unsafe trait Device: Clone + fmt::Debug + Send + Sync + 'static {
    /// Memory of this device, which tensors and views refer to.
    type Buffer: Buffer;

    /// Types of activations that operations accept.
    const ACTIVATIONS: &'static [DType];

    /// A name for people: "cpu (2 threads, AMX)".
    fn name(&self) -> String;
    /// Whether one handle can read what the other has written.
    fn shares_memory_with(&self, other: &Self) -> bool;
    /// Allocates zeroed memory.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer, DeviceError>;
    /// Copies bytes of the host over all bytes of `destination`; both have the same length.
    fn write(&self, destination: ViewMut<'_, Self>, source: &[u8]) -> Result<(), DeviceError>;
    /// Copies all bytes of `source` to the host; both have the same length.
    fn read(&self, source: View<'_, Self>, destination: &mut [u8]) -> Result<(), DeviceError>;
    /// Copies all bytes of `source` over those of `destination`; both have the same length.
    fn copy(
        &self,
        source: View<'_, Self>,
        destination: ViewMut<'_, Self>,
    ) -> Result<(), DeviceError>;
    /// Sets all bytes to zero.
    fn zero(&self, destination: ViewMut<'_, Self>) -> Result<(), DeviceError>;
    /// Waits until the device has finished all issued work.
    fn synchronize(&self) -> Result<(), DeviceError>;
    /// Working memory that is not in use.
    fn pool(&self) -> &Pool<Self::Buffer>;
    /// Peak number of allocated bytes on a device with its own memory; `None` if the memory belongs
    /// to the process.
    fn peak_bytes(&self) -> Option<usize> {
        None
    }

    /// Takes working memory of unspecified content, which returns to the pool when it is dropped.
    fn scratch(&self, dtype: DType, shape: &[usize]) -> Result<Scratch<'_, Self>, DeviceError> {
        Scratch::take(self, dtype, shape)
    }
}

/// Returns an error unless both sides of a copy have the same number of bytes.
fn same_bytes(device: usize, host: usize) -> Result<(), DeviceError> {
    match device == host {
        true => Ok(()),
        false => Err(DeviceError::WrongLength {
            shape: vec![device],
            needed: device,
            got: host,
        }),
    }
}
