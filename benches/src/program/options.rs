//! What the chores that measure take on the command line. xtask, which starts this program with its own
//! arguments, reads the same file.

use clap::Args;
use std::path::PathBuf;

/// Of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Suites to run [default: all]
    pub(crate) suites: Vec<String>,
    /// On the emulator instead of a GPU: counts instead of times (only `kernels`). Nothing is
    /// stored without --json
    #[arg(long)]
    pub(crate) emulated: bool,
    /// File for the rows of the one suite that is named, instead of one in benches/runs/
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Of `cargo xtask gpu`.
#[derive(Args)]
pub(crate) struct Gpu {
    /// Try the chore itself on the emulator; the report says so. Nothing is stored without
    /// --json
    #[arg(long)]
    pub(crate) emulated: bool,
    /// File for the report, instead of one in benches/runs/
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
