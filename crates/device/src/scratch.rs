//! Working memory that operations take and return.

use crate::{Buffer, DType, Device, DeviceError, Shape, View, ViewMut};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Idle working memory of a device.
#[derive(Debug)]
pub struct Pool<B> {
    idle: Mutex<Vec<Idle<B>>>,
    /// Size of all memory that the pool has allocated and not freed, in use or not.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Idle<B> {
    bytes: usize,
    buffer: B,
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl<B> Pool<B> {
    /// Number of bytes in the pool, including memory in use.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes the smallest idle buffer that is large enough, or allocates a new one in place of the
    /// largest.
    fn take(
        &self,
        bytes: usize,
        allocate: impl FnOnce() -> Result<B, DeviceError>,
    ) -> Result<Idle<B>, DeviceError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = (0..idle.len())
            .filter(|&index| idle[index].bytes >= bytes)
            .min_by_key(|&index| idle[index].bytes);
        if let Some(index) = fits {
            return Ok(idle.swap_remove(index));
        }
        // The largest idle buffer is replaced by a larger one. It is freed first, so that both
        // never exist at once.
        if let Some(index) = (0..idle.len()).max_by_key(|&index| idle[index].bytes) {
            let outgrown = idle.swap_remove(index);
            self.bytes.fetch_sub(outgrown.bytes, Ordering::Relaxed);
        }
        drop(idle);
        let buffer = allocate()?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Idle { bytes, buffer })
    }

    fn give_back(&self, buffer: Idle<B>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(buffer);
    }
}

/// Working memory of unspecified content, returned when it is dropped. The operation drops it after
/// issuing its last kernel, because later work is ordered after that kernel.
#[derive(Debug)]
pub struct Scratch<'a, D: Device> {
    device: &'a D,
    // Only `drop` takes the buffer out.
    buffer: Option<Idle<D::Buffer>>,
    dtype: DType,
    shape: Shape,
}

impl<'a, D: Device> Scratch<'a, D> {
    pub(crate) fn take(device: &'a D, dtype: DType, shape: &[usize]) -> Result<Self, DeviceError> {
        let shape = Shape::new(shape)?;
        let bytes = shape.bytes(dtype)?;
        let buffer = device.pool().take(bytes, || device.allocate(bytes))?;
        Ok(Self {
            device,
            buffer: Some(buffer),
            dtype,
            shape,
        })
    }

    fn start(&self) -> *mut u8 {
        let buffer = self.buffer.as_ref();
        buffer.map_or(std::ptr::null_mut(), |idle| idle.buffer.start())
    }

    /// View for reading.
    pub fn view(&self) -> View<'_, D> {
        // SAFETY: the buffer has the bytes of the shape, is alive and nobody else's until `drop`, and
        // is written by way of an exclusive borrow alone.
        unsafe { View::from_raw(self.device, self.start(), self.dtype, self.shape) }
    }

    /// View for writing.
    pub fn view_mut(&mut self) -> ViewMut<'_, D> {
        // SAFETY: the buffer has the bytes of the shape, is alive and nobody else's until `drop`, and
        // is borrowed exclusively.
        unsafe { ViewMut::from_raw(self.device, self.start(), self.dtype, self.shape) }
    }
}

impl<D: Device> Drop for Scratch<'_, D> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.device.pool().give_back(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

    #[test]
    fn scratch_is_used_again_and_what_is_outgrown_goes() {
        let cpu = Cpu::new(1).unwrap();
        let take = |len| cpu.scratch(DType::U8, &[len]).unwrap();
        let (mut small, large) = (take(100), take(1000));
        // Two buffers of one size in use at once are different.
        small.view_mut().write(&[7u8; 100]).unwrap();
        let other = take(100);
        assert_ne!(small.view().as_ptr(), other.view().as_ptr());
        assert_eq!(cpu.pool().bytes(), 1200);
        drop((small, large, other));
        let again = take(101);
        assert_eq!(again.view().len(), 101);
        assert_eq!(cpu.pool().bytes(), 1200, "the large one serves");
        drop(take(2000));
        assert_eq!(cpu.pool().bytes(), 1000 + 100 + 2000);
    }
}
