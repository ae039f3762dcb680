//! Time as the GPU measures it.

use super::{Cuda, failed};
use crate::DeviceError;
use cudarc::driver::{DriverError, sys::CUevent_flags};
use std::time::Duration;

impl Cuda {
    /// The time between two events around what `issue` issues, as the GPU reaches them; waits for
    /// both. It includes what the GPU waits for the host meanwhile. CUDA resolves about half a
    /// microsecond.
    pub fn time<E: From<DeviceError>>(
        &self,
        issue: impl FnOnce() -> Result<(), E>,
    ) -> Result<Duration, E> {
        let error = |error: DriverError| failed("timing", &error);
        let stream = &self.shared.stream;
        let record = || {
            let event = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            event.map_err(error)
        };
        let start = record()?;
        issue()?;
        let end = record()?;
        let milliseconds = start.elapsed_ms(&end).map_err(error)?;
        Ok(Duration::from_secs_f64(
            f64::from(milliseconds.max(0.0)) / 1e3,
        ))
    }
}
