//! Passes the version to the program, with the commit that it is built from if it is known.

use std::{fs, path::Path, process::Command};

fn main() {
    let version = env!("CARGO_PKG_VERSION");
    let version = match packaged().or_else(cloned) {
        Some(commit) => format!("{version} ({})", &commit[..commit.len().min(12)]),
        None => version.to_owned(),
    };
    println!("cargo::rustc-env=TIGHTROPE_VERSION={version}");
    println!("cargo::rerun-if-changed=build.rs");
}

/// The commit that `cargo package` has recorded.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let commit = text.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(commit.to_owned())
}

/// The commit of the clone that holds this crate. A package that was unpacked inside another
/// repository does not belong to that repository.
fn cloned() -> Option<String> {
    if !Path::new("../../.git").exists() {
        return None;
    }
    // The file grows with every commit and checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}
