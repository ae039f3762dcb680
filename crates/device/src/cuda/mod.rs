//! NVIDIA GPUs: memory, one stream and kernels, through the driver, which is loaded at run time.

mod blas;
mod launch;
mod memory;
mod time;

pub use blas::{Matrix, MatrixMut, Product, Varying};
pub use launch::{Input, Kernel, Launch, Module, Output, Parameter, vector_width};
pub use memory::CudaBytes;

use crate::{DType, Device, DeviceError, IndexWidth, Pool, View, ViewMut, same_bytes};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result, sys};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// An NVIDIA GPU. Operations are issued to one stream, so each sees the results of the operations
/// before it. Calls are asynchronous: only [`Device::read`], [`Device::synchronize`] and functions
/// documented as blocking wait.
///
/// Building needs neither a GPU nor CUDA. The kernels are PTX for compute capability 8.0 and
/// newer, which the driver (580 or newer) translates when an operation is first used.
///
/// Device code that meets an index outside its table stops with a trap, which ends the context:
/// every later call fails. Callers therefore check indices on the host first.
#[derive(Clone)]
pub struct Cuda {
    shared: Arc<Shared>,
    forced: Option<IndexWidth>,
    small_limits: bool,
}

struct Shared {
    /// Created on first use.
    blas: Mutex<Option<blas::Blas>>,
    name: String,
    ordinal: usize,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Modules by name.
    modules: Mutex<HashMap<&'static str, Arc<CudaModule>>>,
    /// Functions by name of the module and symbol.
    functions: RwLock<HashMap<(&'static str, &'static str), CudaFunction>>,
    scratch: Pool<CudaBytes>,
    usage: Arc<memory::Usage>,
}

impl Cuda {
    /// Opens the GPU with this number, counted from 0. Returns an error with the reason if there is
    /// no driver or no such GPU.
    pub fn new(ordinal: usize) -> Result<Self, DeviceError> {
        let failed = |error: DriverError| DeviceError::NoCuda {
            ordinal,
            reason: describe(&error),
        };
        // This is checked before any call, because the bindings panic if there is no library.
        if !Self::has_driver() {
            return Err(DeviceError::NoCuda {
                ordinal,
                reason: "no libcuda was found; is the NVIDIA driver installed?".into(),
            });
        }
        let context = CudaContext::new(ordinal).map_err(failed)?;
        let capability = context.compute_capability().map_err(failed)?;
        if capability.0 < 8 {
            return Err(DeviceError::NoCuda {
                ordinal,
                reason: format!(
                    "its compute capability is {}.{}, and kernels need 8.0 (Ampere)",
                    capability.0, capability.1
                ),
            });
        }
        // SAFETY: there is one stream, and it orders all accesses to its memory.
        unsafe { context.disable_event_tracking() };
        Ok(Self {
            forced: None,
            small_limits: false,
            shared: Arc::new(Shared {
                blas: Mutex::default(),
                name: context.name().map_err(failed)?,
                ordinal,
                stream: context.new_stream().map_err(failed)?,
                context,
                modules: Mutex::default(),
                functions: RwLock::default(),
                scratch: Pool::default(),
                usage: Arc::default(),
            }),
        })
    }

    /// Whether the driver's library exists. It may still find no GPU.
    pub fn has_driver() -> bool {
        // SAFETY: opens the driver's library and closes it again; its initialisers are trusted.
        unsafe { sys::is_culib_present() }
    }

    /// Index width for offsets up to and including `largest` (strides included, in elements).
    pub fn index_width(&self, largest: usize) -> IndexWidth {
        // A thread may add this much to an offset before it compares the offset with the end.
        const STEP: u64 = 1 << 16;
        let largest = (largest as u64).saturating_add(STEP);
        self.forced
            .unwrap_or_else(|| IndexWidth::for_largest_offset(largest))
    }

    /// The same GPU, with every kernel computing offsets in this width. For tests: the narrow width
    /// is wrong for large tensors.
    #[must_use]
    pub fn forcing(&self, width: IndexWidth) -> Self {
        Self {
            forced: Some(width),
            ..self.clone()
        }
    }

    /// The same GPU, with operations that cut their work into more and smaller pieces. For tests:
    /// small operands then take the paths that only large operands take otherwise. Sums of pieces
    /// have other last bits.
    #[must_use]
    pub fn with_small_limits(&self) -> Self {
        Self {
            small_limits: true,
            ..self.clone()
        }
    }

    /// A limit of an operation: `usual`, or `small` on a device made by
    /// [`Cuda::with_small_limits`].
    pub fn limit(&self, usual: usize, small: usize) -> usize {
        match self.small_limits {
            true => small,
            false => usual,
        }
    }

    /// The kernel with the name `symbol`, loaded once.
    fn function(
        &self,
        module: &'static Module,
        symbol: &'static str,
    ) -> Result<CudaFunction, DeviceError> {
        let functions = &self.shared.functions;
        let known = functions.read().unwrap_or_else(PoisonError::into_inner);
        let key = (module.name, symbol);
        if let Some(function) = known.get(&key) {
            return Ok(function.clone());
        }
        drop(known);
        let error = |error: DriverError| failed(symbol, &error);
        let mut modules = self
            .shared
            .modules
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let loaded = match modules.entry(module.name) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let ptx = cudarc::nvrtc::Ptx::from_src(module.ptx);
                entry.insert(self.shared.context.load_module(ptx).map_err(error)?)
            }
        };
        let function = loaded.load_function(symbol).map_err(error)?;
        functions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, function.clone());
        Ok(function)
    }
}

/// An error of the driver, with the operation that failed.
pub(crate) fn failed(what: &str, error: &DriverError) -> DeviceError {
    DeviceError::Cuda {
        what: what.into(),
        reason: describe(error),
    }
}

fn describe(error: &DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => {
            format!("{}: {}", name.to_string_lossy(), text.to_string_lossy())
        }
        _ => format!("{:?}", error.0),
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Address in the type of the driver.
fn address(pointer: *const u8) -> sys::CUdeviceptr {
    pointer.addr() as sys::CUdeviceptr
}

impl Cuda {
    /// Issues a copy or fill of `bytes` bytes; the driver does not accept empty ones.
    fn transfer(
        &self,
        what: &str,
        bytes: usize,
        issue: impl FnOnce(sys::CUstream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        let bound = self.shared.context.bind_to_thread();
        let issued = bound.and_then(|()| issue(self.shared.stream.cu_stream()));
        issued.map_err(|error| failed(what, &error))
    }
}

// SAFETY: `CudaBytes::zeroed` allocates the requested bytes or fails; the pool was made with the
// device.
unsafe impl Device for Cuda {
    type Buffer = CudaBytes;
    const ACTIVATIONS: &'static [DType] = &[DType::F32, DType::BF16];

    fn name(&self) -> String {
        format!("cuda:{} ({})", self.shared.ordinal, self.shared.name)
    }

    fn shares_memory_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn allocate(&self, bytes: usize) -> Result<CudaBytes, DeviceError> {
        CudaBytes::zeroed(self, bytes)
    }

    fn write(&self, mut destination: ViewMut<'_, Self>, source: &[u8]) -> Result<(), DeviceError> {
        same_bytes(destination.bytes(), source.len())?;
        let to = address(destination.as_mut_ptr());
        self.transfer("copy to the device", source.len(), |stream| {
            // SAFETY: the view has as many bytes; the driver has taken those of the host, which are
            // in pageable memory, when the call returns.
            unsafe { result::memcpy_htod_async(to, source, stream) }
        })
    }

    /// Waits for everything that was issued before.
    fn read(&self, source: View<'_, Self>, destination: &mut [u8]) -> Result<(), DeviceError> {
        same_bytes(source.bytes(), destination.len())?;
        let from = address(source.as_ptr());
        self.transfer("copy from the device", destination.len(), |stream| {
            // SAFETY: the view has as many bytes; `destination` is borrowed until all is done.
            unsafe { result::memcpy_dtoh_async(destination, from, stream) }
        })?;
        self.synchronize()
    }

    fn copy(
        &self,
        source: View<'_, Self>,
        mut destination: ViewMut<'_, Self>,
    ) -> Result<(), DeviceError> {
        let bytes = source.bytes();
        same_bytes(destination.bytes(), bytes)?;
        let (from, to) = (address(source.as_ptr()), address(destination.as_mut_ptr()));
        self.transfer("copy on the device", bytes, |stream| {
            // SAFETY: both views have as many bytes; memory is freed in the order of the stream.
            unsafe { result::memcpy_dtod_async(to, from, bytes, stream) }
        })
    }

    fn zero(&self, mut destination: ViewMut<'_, Self>) -> Result<(), DeviceError> {
        let bytes = destination.bytes();
        let to = address(destination.as_mut_ptr());
        self.transfer("zeroing", bytes, |stream| {
            // SAFETY: the view has as many bytes.
            unsafe { result::memset_d8_async(to, 0, bytes, stream) }
        })
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        let result = self.shared.stream.synchronize();
        result.map_err(|error| failed("waiting for the device", &error))
    }

    fn pool(&self) -> &Pool<CudaBytes> {
        &self.shared.scratch
    }

    fn peak_bytes(&self) -> Option<usize> {
        Some(self.shared.usage.peak())
    }
}
