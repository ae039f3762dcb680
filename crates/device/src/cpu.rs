//! The CPU: aligned buffers in huge pages and one thread pool.

use crate::{Device, DeviceError, inside, tiles};
use std::{
    alloc::{Layout, alloc, dealloc},
    fmt,
    ptr::NonNull,
    sync::Arc,
};

/// Size of a transparent huge page; larger buffers are aligned to it and ask for such pages.
const HUGE_PAGE: usize = 2 << 20;
const ALIGNMENT: usize = 64;

/// The processor. Results do not depend on the number of threads.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
    tiles: bool,
}

impl Cpu {
    /// A device with its own pool of `threads` threads; 0 = one per available core.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cpu-{index}"))
            .build()
            .map_err(|error| DeviceError::Threads {
                threads,
                reason: error.to_string(),
            })?;
        Ok(Self {
            pool: Arc::new(pool),
            tiles: tiles::usable(),
        })
    }

    /// Whether products are computed by a matrix unit (AMX): tiles of bf16, three for each tile of f32.
    pub fn has_tiles(&self) -> bool {
        self.tiles
    }

    /// The same device, its products computed in vectors: other last bits where it had tiles.
    pub fn without_tiles(&self) -> Self {
        Self {
            tiles: false,
            ..self.clone()
        }
    }

    /// Threads in the pool.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` inside the pool, so that rayon's parallel iterators in it use this pool's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Device for Cpu {
    type Buffer = AlignedBytes;

    fn name(&self) -> String {
        let tiles = if self.tiles { ", AMX" } else { "" };
        format!("cpu ({} threads{tiles})", self.threads())
    }

    fn allocate(&self, bytes: usize) -> Result<AlignedBytes, DeviceError> {
        AlignedBytes::zeroed(bytes).ok_or_else(|| DeviceError::OutOfMemory {
            bytes,
            device: self.name(),
        })
    }

    fn bytes(buffer: &AlignedBytes) -> usize {
        buffer.len
    }

    fn write(
        &self,
        buffer: &mut AlignedBytes,
        offset: usize,
        source: &[u8],
    ) -> Result<(), DeviceError> {
        buffer
            .range_mut(offset, source.len())?
            .copy_from_slice(source);
        Ok(())
    }

    fn read(
        &self,
        buffer: &AlignedBytes,
        offset: usize,
        destination: &mut [u8],
    ) -> Result<(), DeviceError> {
        destination.copy_from_slice(buffer.range(offset, destination.len())?);
        Ok(())
    }

    fn copy(
        &self,
        source: &AlignedBytes,
        source_offset: usize,
        destination: &mut AlignedBytes,
        destination_offset: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        destination
            .range_mut(destination_offset, bytes)?
            .copy_from_slice(source.range(source_offset, bytes)?);
        Ok(())
    }

    fn zero(
        &self,
        buffer: &mut AlignedBytes,
        offset: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        buffer.range_mut(offset, bytes)?.fill(0);
        Ok(())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Zero-initialised memory, aligned to 64 bytes, or to huge pages when it is large.
pub struct AlignedBytes {
    start: NonNull<u8>,
    len: usize,
    layout: Layout,
}

impl AlignedBytes {
    fn zeroed(len: usize) -> Option<Self> {
        let alignment = if len >= HUGE_PAGE {
            HUGE_PAGE
        } else {
            ALIGNMENT
        };
        // A size of zero may not be allocated: one alignment unit stands behind empty buffers.
        let size = len.max(1).checked_next_multiple_of(alignment)?;
        let layout = Layout::from_size_align(size, alignment).ok()?;
        // SAFETY: `layout` has a size of at least `alignment`, so it is not zero.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        // The advice comes before the first touch, or the pages would be small ones already.
        #[cfg(target_os = "linux")]
        if len >= HUGE_PAGE {
            // SAFETY: the range is exactly the allocation above; the advice changes no contents.
            // Its result is not needed: without huge pages everything works, only slower.
            let _ = unsafe { libc::madvise(start.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the allocation above has `size` bytes.
        unsafe { start.as_ptr().write_bytes(0, size) };
        Some(Self { start, len, layout })
    }

    /// All bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// All bytes.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`, and `&mut self` excludes every other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    fn range(&self, offset: usize, bytes: usize) -> Result<&[u8], DeviceError> {
        Ok(&self.as_bytes()[inside(offset, bytes, self.len)?])
    }

    fn range_mut(&mut self, offset: usize, bytes: usize) -> Result<&mut [u8], DeviceError> {
        let range = inside(offset, bytes, self.len)?;
        Ok(&mut self.as_bytes_mut()[range])
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

// SAFETY: the memory is owned alone, and shared references only read it.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero_at_every_size() {
        let cpu = Cpu::new(1).unwrap();
        for bytes in [
            0,
            1,
            63,
            64,
            65,
            HUGE_PAGE - 1,
            HUGE_PAGE,
            3 * HUGE_PAGE + 5,
        ] {
            let buffer = cpu.allocate(bytes).unwrap();
            assert_eq!(Cpu::bytes(&buffer), bytes);
            assert_eq!(buffer.start.as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.as_bytes().iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn ranges_are_checked_without_overflow() {
        let cpu = Cpu::new(1).unwrap();
        let mut buffer = cpu.allocate(8).unwrap();
        assert!(cpu.write(&mut buffer, usize::MAX, &[1, 2]).is_err());
        assert!(cpu.zero(&mut buffer, 4, 5).is_err());
        assert!(cpu.read(&buffer, 8, &mut []).is_ok());
    }
}
