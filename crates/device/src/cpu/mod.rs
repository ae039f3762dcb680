//! The CPU: aligned buffers in huge pages, and one thread pool.

mod blocks;
mod units;
mod vectorize;

pub use blocks::{Rows, Split, rows};
#[cfg(target_arch = "x86_64")]
pub use vectorize::{has_avx2_fma, has_avx512};

use crate::{Buffer, DType, Device, DeviceError, Pool, View, ViewMut, same_bytes};
use std::{
    alloc::{Layout, alloc, dealloc},
    fmt,
    ptr::NonNull,
    sync::Arc,
};

/// Size of a transparent huge page; buffers of at least this size are aligned to it and ask for
/// such pages.
const HUGE_PAGE: usize = 2 << 20;
const ALIGNMENT: usize = 64;

/// The CPU as a device. Results do not depend on the number of threads.
#[derive(Clone)]
pub struct Cpu {
    threads: Arc<rayon::ThreadPool>,
    scratch: Arc<Pool<AlignedBytes>>,
    amx: bool,
    avx512_bf16: bool,
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
            threads: Arc::new(pool),
            scratch: Arc::default(),
            amx: units::amx(),
            avx512_bf16: units::takes_avx512_bf16(),
        })
    }

    /// Whether a matrix unit (AMX) computes products: tiles of bf16, three for each tile of f32.
    /// The variable `TIGHTROPE_AMX=0` leaves it out.
    pub fn has_amx(&self) -> bool {
        self.amx
    }

    /// Whether products of bf16 without a matrix unit use instructions on pairs of bf16
    /// (AVX512-BF16); otherwise bf16 is widened to f32, which is faster on processors of Intel. The
    /// variable `TIGHTROPE_AVX512_BF16` chooses: `0` or `1`.
    pub fn uses_avx512_bf16(&self) -> bool {
        self.avx512_bf16
    }

    /// The same device with products computed in vectors; the last bits differ if it had AMX.
    pub fn without_amx(&self) -> Self {
        Self {
            amx: false,
            ..self.clone()
        }
    }

    /// The same device with products of bf16 computed by instructions on pairs, unless it has AMX;
    /// `None` if the processor lacks them.
    pub fn with_avx512_bf16(&self) -> Option<Self> {
        units::has_avx512_bf16().then(|| Self {
            avx512_bf16: true,
            ..self.clone()
        })
    }

    /// The same device with products of bf16 computed in f32, unless it has AMX.
    pub fn without_avx512_bf16(&self) -> Self {
        Self {
            avx512_bf16: false,
            ..self.clone()
        }
    }

    /// Number of threads in the pool.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` inside the pool, so that rayon's parallel iterators use the threads of this
    /// pool.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

// SAFETY: `AlignedBytes::zeroed` allocates the requested bytes or fails; the pool was made with the
// device.
unsafe impl Device for Cpu {
    type Buffer = AlignedBytes;
    const ACTIVATIONS: &'static [DType] = &[DType::F32, DType::BF16];

    fn name(&self) -> String {
        let unit = match (self.amx, self.avx512_bf16) {
            (true, _) => ", AMX",
            (false, true) => ", AVX512-BF16",
            (false, false) => "",
        };
        let plural = if self.threads() == 1 { "" } else { "s" };
        format!("cpu ({} thread{plural}{unit})", self.threads())
    }

    fn allocate(&self, bytes: usize) -> Result<AlignedBytes, DeviceError> {
        AlignedBytes::zeroed(bytes).ok_or_else(|| DeviceError::OutOfMemory {
            bytes,
            device: self.name(),
        })
    }

    /// Every handle reaches the memory of the process.
    fn shares_memory_with(&self, _: &Self) -> bool {
        true
    }

    fn write(&self, destination: ViewMut<'_, Self>, source: &[u8]) -> Result<(), DeviceError> {
        same_bytes(destination.bytes(), source.len())?;
        destination.into_bytes().copy_from_slice(source);
        Ok(())
    }

    fn read(&self, source: View<'_, Self>, destination: &mut [u8]) -> Result<(), DeviceError> {
        same_bytes(source.bytes(), destination.len())?;
        destination.copy_from_slice(source.as_bytes());
        Ok(())
    }

    fn copy(
        &self,
        source: View<'_, Self>,
        destination: ViewMut<'_, Self>,
    ) -> Result<(), DeviceError> {
        self.write(destination, source.as_bytes())
    }

    fn zero(&self, destination: ViewMut<'_, Self>) -> Result<(), DeviceError> {
        destination.into_bytes().fill(0);
        Ok(())
    }

    fn pool(&self) -> &Pool<AlignedBytes> {
        &self.scratch
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
        // A size of zero may not be allocated: an empty buffer gets one alignment unit.
        let size = len.max(1).checked_next_multiple_of(alignment)?;
        let layout = Layout::from_size_align(size, alignment).ok()?;
        // SAFETY: `layout` has a size of at least `alignment`, so it is not zero.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        // The advice precedes the first touch, or the pages would already be small ones.
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
}

// SAFETY: `start` points to `layout.size()` initialised bytes, at least as many as requested, which
// belong to this value until it is dropped.
unsafe impl Buffer for AlignedBytes {
    fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: `zeroed` allocated the memory with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

// SAFETY: this value is the only owner of the memory.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared references only give the address, and views control who writes to the memory.
unsafe impl Sync for AlignedBytes {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

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
            let tensor = Tensor::zeros(&cpu, DType::U8, &[bytes]).unwrap();
            assert_eq!(tensor.view().as_ptr() as usize % ALIGNMENT, 0);
            let elements = tensor.as_slice::<u8>().unwrap();
            assert!(elements.len() == bytes && elements.iter().all(|&byte| byte == 0));
        }
    }
}
