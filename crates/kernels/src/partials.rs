//! The launch that adds partial sums, as `partials.cuh` has it.

use tightrope_device::{DeviceError, cuda::Launch};

/// Features of a block, and its threads.
const COLUMNS: usize = 32;
const THREADS: u32 = 1024;

/// For sums of so many features.
pub(crate) fn launch(features: usize) -> Result<Launch, DeviceError> {
    Launch::linear(features.div_ceil(COLUMNS), THREADS)
}
