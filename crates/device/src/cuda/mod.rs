//! NVIDIA GPUs: memory, one stream and kernels, through the driver that is found at run time.

mod blas;
mod launch;
mod memory;
mod scratch;
mod time;

pub use blas::{Matrix, MatrixMut, Product, Varying};
pub use launch::{Input, Launch, Module, Output, Parameter, vector_width};
pub use memory::CudaBytes;
pub use scratch::{Held, Scratch};

use crate::{Device, DeviceError, IndexWidth};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, sys};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// An NVIDIA GPU. Operations are issued to one stream, so each sees what those before it wrote;
/// nothing waits but [`Device::read`], [`Device::synchronize`] and what says so.
///
/// Building needs neither a GPU nor CUDA. The kernels are PTX for compute capability 8.0 and
/// newer, which the driver (580 or newer) translates when an operation is first used.
///
/// Device code that meets an index outside its table stops with a trap, which ends the context:
/// every later call fails. Callers check indices on the host first.
#[derive(Clone)]
pub struct Cuda {
    shared: Arc<Shared>,
    forced: Option<IndexWidth>,
}

struct Shared {
    /// Made when first needed.
    blas: Mutex<Option<blas::Blas>>,
    name: String,
    ordinal: usize,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// By the address of the PTX.
    modules: Mutex<HashMap<usize, Arc<cudarc::driver::CudaModule>>>,
    /// By symbol.
    functions: RwLock<HashMap<&'static str, CudaFunction>>,
    scratch: scratch::Arena,
    usage: Arc<memory::Usage>,
}

impl Cuda {
    /// The GPU with this number, counted from 0. Errors, and says why, if there is no driver or no
    /// such GPU.
    pub fn new(ordinal: usize) -> Result<Self, DeviceError> {
        let failed = |error: DriverError| DeviceError::NoCuda {
            ordinal,
            reason: describe(&error),
        };
        // Asked before any call, because the bindings panic when there is no library.
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
        // SAFETY: there is one stream, and it orders everything that is done with its memory.
        unsafe { context.disable_event_tracking() };
        Ok(Self {
            forced: None,
            shared: Arc::new(Shared {
                blas: Mutex::default(),
                name: context.name().map_err(failed)?,
                ordinal,
                stream: context.new_stream().map_err(failed)?,
                context,
                modules: Mutex::default(),
                functions: RwLock::default(),
                scratch: scratch::Arena::default(),
                usage: Arc::default(),
            }),
        })
    }

    /// Whether the driver's library is there. It may still find no GPU.
    pub fn has_driver() -> bool {
        // SAFETY: opens the driver's library and closes it again; its initialisers are trusted.
        unsafe { sys::is_culib_present() }
    }

    /// The width for offsets up to and including `largest` (strides included, in elements).
    pub fn index_width(&self, largest: usize) -> IndexWidth {
        // What a thread adds to an offset before it compares it with the end.
        const STEP: u64 = 1 << 16;
        let largest = (largest as u64).saturating_add(STEP);
        self.forced
            .unwrap_or_else(|| IndexWidth::for_largest_offset(largest))
    }

    /// The same GPU, on which every kernel computes offsets in this width. For tests: the narrow
    /// width is wrong for large tensors.
    #[must_use]
    pub fn forcing(&self, width: IndexWidth) -> Self {
        Self {
            shared: self.shared.clone(),
            forced: Some(width),
        }
    }

    /// The kernel called `symbol`, loaded once.
    fn function(
        &self,
        module: &'static Module,
        symbol: &'static str,
    ) -> Result<CudaFunction, DeviceError> {
        let functions = &self.shared.functions;
        let known = functions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = known.get(symbol) {
            return Ok(function.clone());
        }
        drop(known);
        let error = |error: DriverError| failed(symbol, &error);
        let mut modules = self
            .shared
            .modules
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let loaded = match modules.entry(module.ptx.as_ptr() as usize) {
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
            .insert(symbol, function.clone());
        Ok(function)
    }
}

/// An error of the driver, with what was being done.
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

impl Device for Cuda {
    type Buffer = CudaBytes;

    fn name(&self) -> String {
        format!("cuda:{} ({})", self.shared.ordinal, self.shared.name)
    }

    fn allocate(&self, bytes: usize) -> Result<CudaBytes, DeviceError> {
        CudaBytes::zeroed(self, bytes)
    }

    fn bytes(buffer: &CudaBytes) -> usize {
        buffer.len()
    }

    fn write(
        &self,
        buffer: &mut CudaBytes,
        offset: usize,
        source: &[u8],
    ) -> Result<(), DeviceError> {
        let Some(mut view) = buffer.range_mut(offset, source.len())? else {
            return Ok(());
        };
        let result = self.shared.stream.memcpy_htod(source, &mut view);
        result.map_err(|error| failed("copy to the device", &error))
    }

    /// Waits for everything that was issued before.
    fn read(
        &self,
        buffer: &CudaBytes,
        offset: usize,
        destination: &mut [u8],
    ) -> Result<(), DeviceError> {
        let Some(view) = buffer.range(offset, destination.len())? else {
            return Ok(());
        };
        let result = self.shared.stream.memcpy_dtoh(&view, destination);
        result.map_err(|error| failed("copy from the device", &error))?;
        self.synchronize()
    }

    fn copy(
        &self,
        source: &CudaBytes,
        source_offset: usize,
        destination: &mut CudaBytes,
        destination_offset: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let source = source.range(source_offset, bytes)?;
        let destination = destination.range_mut(destination_offset, bytes)?;
        let (Some(source), Some(mut destination)) = (source, destination) else {
            return Ok(());
        };
        let result = self.shared.stream.memcpy_dtod(&source, &mut destination);
        result.map_err(|error| failed("copy on the device", &error))
    }

    fn zero(&self, buffer: &mut CudaBytes, offset: usize, bytes: usize) -> Result<(), DeviceError> {
        let Some(mut view) = buffer.range_mut(offset, bytes)? else {
            return Ok(());
        };
        let result = self.shared.stream.memset_zeros(&mut view);
        result.map_err(|error| failed("zeroing", &error))
    }

    fn peak_bytes(&self) -> Option<usize> {
        Some(self.shared.usage.peak())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        let result = self.shared.stream.synchronize();
        result.map_err(|error| failed("waiting for the device", &error))
    }
}
