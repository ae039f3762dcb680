//! Times work with the clock of the GPU.

use super::{Cuda, failed};
use crate::DeviceError;
use cudarc::driver::{DriverError, sys::CUevent_flags};
use std::time::Duration;

impl Cuda {
    /// Time between two events around the work that `issue` issues, as the GPU reaches them; blocks
    /// until both are reached. It includes the time in which the GPU waits for the host. CUDA
    /// resolves about half a microsecond.
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
