//! `cargo xtask bench` and `cargo xtask gpu`: builds and starts the program in benches/.

use crate::build;
use anyhow::Result;
use std::{env, path::Path, process::Command};

/// Runs it with the arguments of this chore; returns whether it succeeds. The program prints its
/// errors itself.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let program = build::program(root, "--bin", "tightrope-benches", |_| ())?;
    let status = Command::new(program)
        .args(env::args_os().skip(1))
        .status()?;
    Ok(status.success())
}
