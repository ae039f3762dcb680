//! Builds a program of the workspace for a chore, with the dependencies that the tests have.

use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Builds the program of this name and kind (`--bin` or `--example`) with the additions of `more`;
/// returns the path that cargo reports.
pub(crate) fn program(
    root: &Path,
    kind: &str,
    name: &str,
    more: impl FnOnce(&mut Command),
) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked", "--workspace"]);
    command.args([kind, name]);
    more(&mut command);
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    println!("$ cargo {}", arguments.join(" "));
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo")?;
    ensure!(output.status.success(), "{name} does not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let program = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let executable = message["executable"].as_str()?;
        (message["target"]["name"] == name).then(|| PathBuf::from(executable))
    });
    program.with_context(|| format!("cargo names no program {name}"))
}
