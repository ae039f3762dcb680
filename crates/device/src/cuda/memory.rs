//! Memory of a GPU.

use super::Cuda;
use crate::{Device, DeviceError, inside};
use cudarc::driver::{CudaSlice, CudaView, CudaViewMut, DevicePtr, sys};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Memory of one GPU, aligned to at least 256 bytes.
#[derive(Debug)]
pub struct CudaBytes {
    slice: CudaSlice<u8>,
    len: usize,
    usage: Arc<Usage>,
}

/// Bytes that are allocated on a GPU.
#[derive(Debug, Default)]
pub(super) struct Usage {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Usage {
    fn add(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    /// Most bytes at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for CudaBytes {
    fn drop(&mut self) {
        self.usage.now.fetch_sub(self.len, Ordering::Relaxed);
    }
}

impl CudaBytes {
    pub(super) fn zeroed(device: &Cuda, len: usize) -> Result<Self, DeviceError> {
        // The driver refuses empty allocations.
        let slice = device.shared.stream.alloc_zeros::<u8>(len.max(1));
        let slice = slice.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::OutOfMemory {
                bytes: len,
                device: device.name(),
            },
            _ => super::failed("allocation", &error),
        })?;
        let usage = device.shared.usage.clone();
        usage.add(len);
        Ok(Self { slice, len, usage })
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it starts on the device.
    pub fn address(&self) -> u64 {
        let (address, _ordered_by_the_stream) = self.slice.device_ptr(self.slice.stream());
        address
    }

    /// `None` for an empty range, which the driver does not take.
    pub(super) fn range(
        &self,
        offset: usize,
        bytes: usize,
    ) -> Result<Option<CudaView<'_, u8>>, DeviceError> {
        let range = inside(offset, bytes, self.len)?;
        Ok((bytes > 0).then(|| self.slice.slice(range)))
    }

    /// As [`CudaBytes::range`].
    pub(super) fn range_mut(
        &mut self,
        offset: usize,
        bytes: usize,
    ) -> Result<Option<CudaViewMut<'_, u8>>, DeviceError> {
        let range = inside(offset, bytes, self.len)?;
        Ok((bytes > 0).then(|| self.slice.slice_mut(range)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_stays_when_memory_goes() {
        let usage = Usage::default();
        usage.add(100);
        usage.add(50);
        usage.now.fetch_sub(100, Ordering::Relaxed);
        usage.add(20);
        assert_eq!(usage.peak(), 150);
    }
}
