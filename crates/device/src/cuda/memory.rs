//! Memory of a GPU.

use super::Cuda;
use crate::{Buffer, Device, DeviceError};
use cudarc::driver::{CudaSlice, DevicePtr, sys};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Memory of one GPU, aligned to at least 256 bytes.
#[derive(Debug)]
pub struct CudaBytes {
    /// Frees the memory when it is dropped.
    _slice: CudaSlice<u8>,
    start: u64,
    len: usize,
    usage: Arc<Usage>,
}

/// Number of bytes that are allocated on a GPU.
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

    /// Peak number of bytes.
    pub(super) fn peak(&self) -> usize {
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
        let start = {
            let (start, _ordered_by_the_stream) = slice.device_ptr(slice.stream());
            start
        };
        let usage = device.shared.usage.clone();
        usage.add(len);
        Ok(Self {
            _slice: slice,
            start,
            len,
            usage,
        })
    }
}

// SAFETY: the slice, which lives as long, has at least `len` bytes from `start` on, and the driver aligns
// allocations to 256 bytes.
unsafe impl Buffer for CudaBytes {
    fn start(&self) -> *mut u8 {
        std::ptr::without_provenance_mut(self.start as usize)
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
