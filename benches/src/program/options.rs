//! Command-line options of the chores that measure. xtask, which starts this program with its own
//! arguments, uses the same file.

use clap::Args;
use std::path::PathBuf;

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Suites to run [default: all]
    pub(crate) suites: Vec<String>,
    /// Count on the emulator instead of timing on a GPU (only `kernels`). Nothing is stored without
    /// --json
    #[arg(long)]
    pub(crate) emulated: bool,
    /// File for the rows of the named suite, instead of one in benches/runs/
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `cargo xtask gpu`.
#[derive(Args)]
pub(crate) struct Gpu {
    /// Test the chore itself on the emulator; the report says so. Nothing is stored without --json
    #[arg(long)]
    pub(crate) emulated: bool,
    /// File for the report, instead of one in benches/runs/
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
