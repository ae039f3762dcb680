//! `cargo xtask bench` and `cargo xtask gpu`: the program in benches/, built and started.

use crate::build;
use anyhow::Result;
use std::{env, path::Path, process::Command};

/// Runs it with the arguments of this chore; whether it succeeds. What went wrong it has said.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let program = build::program(root, "--bin", "tightrope-benches", |_| ())?;
    let status = Command::new(program)
        .args(env::args_os().skip(1))
        .status()?;
    Ok(status.success())
}
