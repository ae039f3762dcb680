//! The launch that adds partial sums, as in `partials.cuh`.

use tightrope_device::{DeviceError, cuda::Launch};

/// Number of features and of threads in a block.
const COLUMNS: usize = 32;
const THREADS: u32 = 1024;

/// Launch for sums of this number of features.
pub(crate) fn launch(features: usize) -> Result<Launch, DeviceError> {
    Launch::linear(features.div_ceil(COLUMNS), THREADS)
}
