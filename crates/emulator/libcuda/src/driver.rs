//! State of the API: one device with its memory, streams, events and modules.
use crate::status::{Code, INVALID_HANDLE, refuse};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Instant;
use tightrope_emulator::{DeviceMemory, Event, Module, Order, Streams};

/// A handle of one of our objects.
pub(crate) type Handle = *mut c_void;

/// A kernel that the caller has looked up.
pub(crate) struct Function {
    pub module: u64,
    pub name: String,
    /// Largest dynamic shared memory that the caller has opted in to.
    pub most_dynamic_shared: u32,
}

#[derive(Default)]
pub(crate) struct Driver {
    pub memory: DeviceMemory,
    pub allocated: u64,
    pub streams: Streams,
    pub events: HashMap<u64, Option<(Event, Instant)>>,
    pub modules: HashMap<u64, Module>,
    pub functions: HashMap<u64, Function>,
    next: u64,
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(Mutex::default);

/// Locks the driver for one call.
pub(crate) fn driver() -> MutexGuard<'static, Driver> {
    DRIVER
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// First handle of a stream; 0, 1 and 2 are the default streams of the API.
const FIRST_STREAM: u64 = 0x1000;

impl Driver {
    /// Creates a new handle.
    pub(crate) fn handle(&mut self) -> u64 {
        self.next += 1;
        0x10_0000 + self.next * 16
    }

    pub(crate) fn stream_handle(stream: usize) -> Handle {
        (FIRST_STREAM + stream as u64) as Handle
    }

    pub(crate) fn stream(&self, handle: Handle) -> Result<usize, Code> {
        match handle as u64 {
            0..=2 => Ok(0),
            handle => handle
                .checked_sub(FIRST_STREAM)
                .map(|s| s as usize)
                .ok_or(INVALID_HANDLE),
        }
    }

    /// Issues the next operation of a stream.
    pub(crate) fn issue(&mut self, handle: Handle) -> Result<Order, Code> {
        let stream = self.stream(handle)?;
        self.streams.issue(stream).map_err(|error| refuse(&error))
    }

    /// Runs an operation that the host waits for and that has no stream.
    pub(crate) fn synchronous<R>(
        &mut self,
        f: impl FnOnce(&mut Self, &Order) -> R,
    ) -> Result<R, Code> {
        let order = self.issue(std::ptr::null_mut())?;
        let result = f(self, &order);
        self.streams.synchronize(0);
        Ok(result)
    }
}
