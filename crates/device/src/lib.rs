//! Devices, element types, buffers and tensors.
//!
//! A [`Device`] allocates memory; a [`Tensor`] owns a typed, shaped piece of it, an allocation of its
//! own or a range of an [`Arena`]; operations take a [`View`] or a [`ViewMut`] of it. Operations are
//! traits of the crates above (`trait RmsNorm: Device`), so a new device joins by implementing them
//! and no model changes. The CPU is the embedded default.
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
/// As long as the buffer lives, the bytes that it was allocated with, from [`Buffer::start`] on, are
/// memory of its device, aligned to 64 bytes, that only users of the buffer touch. On the processor
/// they are initialised.
pub unsafe trait Buffer: fmt::Debug + Send + Sync + 'static {
    /// The address of the first byte, as the device counts.
    fn start(&self) -> *mut u8;
}

/// Memory and a place to compute. Cloning gives another handle of the same device.
///
/// # Safety
/// [`Device::allocate`] returns a buffer that has at least the bytes that were asked for, and
/// [`Device::pool`] a pool of this device that no device of another type hands out: tensors, views and
/// working memory rely on both.
pub unsafe trait Device: Clone + fmt::Debug + Send + Sync + 'static {
    /// Memory of this device. Tensors and views are made of it.
    type Buffer: Buffer;

    /// Types in which operations take activations.
    const ACTIVATIONS: &'static [DType];

    /// A name for people: "cpu (2 threads, AMX)".
    fn name(&self) -> String;
    /// Whether what one of the two handles writes can be read with the other.
    fn shares_memory_with(&self, other: &Self) -> bool;
    /// New memory, zeroed.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer, DeviceError>;
    /// Copies bytes of the host over all bytes of `destination`; there are equally many.
    fn write(&self, destination: ViewMut<'_, Self>, source: &[u8]) -> Result<(), DeviceError>;
    /// Copies all bytes of `source` to the host; there are equally many.
    fn read(&self, source: View<'_, Self>, destination: &mut [u8]) -> Result<(), DeviceError>;
    /// Copies all bytes of `source` over those of `destination`; there are equally many.
    fn copy(
        &self,
        source: View<'_, Self>,
        destination: ViewMut<'_, Self>,
    ) -> Result<(), DeviceError>;
    /// Sets all bytes to zero.
    fn zero(&self, destination: ViewMut<'_, Self>) -> Result<(), DeviceError>;
    /// Waits until everything that was asked of the device has happened.
    fn synchronize(&self) -> Result<(), DeviceError>;
    /// Working memory that is not in use.
    fn pool(&self) -> &Pool<Self::Buffer>;
    /// Most bytes that were allocated at once on a device with memory of its own; `None` where
    /// memory is the process's.
    fn peak_bytes(&self) -> Option<usize> {
        None
    }

    /// Working memory of unspecified content; it goes back to the pool when it is dropped.
    fn scratch(&self, dtype: DType, shape: &[usize]) -> Result<Scratch<'_, Self>, DeviceError> {
        Scratch::take(self, dtype, shape)
    }
}

/// Errors unless a copy has as many bytes here as there.
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
