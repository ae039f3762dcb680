//! Benchmark suites, and the rows that they produce.
//!
//! A suite checks its results before it times them, unless a test does. `cargo xtask bench` runs
//! suites and stores their rows, with date, commit and machine, in `runs/`. A new suite is a file
//! in `suites/` and a line in [`SUITES`].
#![deny(missing_docs, unsafe_code)]

mod lengths;
#[allow(unsafe_code, reason = "the widest vectors are called by name")]
mod peak;
mod suites;
mod timing;

pub use lengths::log_normal_lengths;
pub use peak::{Flops, measure_flops};
pub use timing::{Timing, time};

use serde_json::{Map, Value};
use tightrope_device::{Cuda, Device};

/// One measurement: its object, its settings, and the figures. Units are in the names.
pub type Row = Map<String, Value>;

/// Measurements that belong together.
pub struct Suite {
    /// Name on the command line.
    pub name: &'static str,
    /// Description of the measurement.
    pub about: &'static str,
    /// Measures, and passes on each row as soon as it is known.
    pub run: fn(&mut dyn FnMut(Row)) -> anyhow::Result<()>,
}

/// Every suite.
pub const SUITES: &[Suite] = &[
    suites::packing::SUITE,
    suites::batching::SUITE,
    suites::step::SUITE,
    suites::optimizer::SUITE,
    suites::kernels::SUITE,
];

/// The environment variable that names the file for the emulator's counts. If it is set, the suite
/// `kernels` expects the emulator instead of a GPU.
pub const EMULATOR_REPORT: &str = tightrope_emulator::report::VARIABLE;

/// Name of the GPU, from [`Device::name`]. Returns an error if there is none, or only the emulator.
pub fn gpu() -> anyhow::Result<String> {
    let name = Cuda::new(0)?.name();
    anyhow::ensure!(!name.contains(EMULATOR), "{name} is no GPU");
    Ok(name)
}

/// Part of the name of the emulated device.
const EMULATOR: &str = "emulator";

/// Makes a row from its fields in order.
fn row<const N: usize>(fields: [(&str, Value); N]) -> Row {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_emulator_is_no_gpu() {
        let _loaded = tightrope_testkit::cuda();
        let error = super::gpu().unwrap_err().to_string();
        assert!(error.contains("is no GPU"), "{error}");
    }
}
