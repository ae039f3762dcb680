//! `cargo xtask ci`: everything that has to pass, in order, with timings.

#[cfg(test)]
mod commands;
mod start;

use crate::{faults, fuzz, ptx, tidy};
use anyhow::{Context, Result, ensure};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Cargo's arguments for each step. All steps share one profile, so that dependencies are compiled
/// once and checked once.
const CARGO: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    (
        "lints",
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
    ),
    (
        "no features",
        &[
            "clippy",
            "--release",
            "--locked",
            "--no-default-features",
            "-ptightrope-packing",
            "-ptightrope-rope",
            "-ptightrope-formats",
            "-ptightrope-device",
            "-ptightrope-kernels",
            "-ptightrope-data",
            "-ptightrope-model",
            "-ptightrope-train",
            "-ptightrope-cli",
            "--",
            "-D",
            "warnings",
        ],
    ),
    (
        "documentation",
        &["doc", "--release", "--workspace", "--no-deps", "--locked"],
    ),
    // What a time limit on the README's commands should not count.
    ("build", &["build", "--release", "--locked"]),
];
const LICENCES: &[&str] = &["deny", "check", "licenses", "bans", "sources"];

/// Runs every step, stops at the first that fails, and prints how long each took.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut report = Report::default();
    let result = steps(root, &mut report);
    report.print();
    result
}

fn steps(root: &Path, report: &mut Report) -> Result<()> {
    report.step("tidy", || tidy::run(root))?;
    // Before the tests, which run the PTX that is committed.
    report.step("kernels", || ptx::run(root, true))?;
    for (name, arguments) in CARGO {
        report.step(name, || cargo(root, arguments))?;
    }
    for (name, words) in start::commands(root)? {
        report.step(&name, || start::run(root, &words))?;
    }
    match fuzz::missing() {
        None => report.step("fuzzing", || fuzz::gate(root))?,
        Some(why) => report.skipped("fuzzing", why),
    }
    match faults::missing() {
        None => report.step("faults", || faults::gate(root))?,
        Some(why) => report.skipped("faults", why),
    }
    match has_cargo_deny() {
        true => report.step("licences", || cargo(root, LICENCES))?,
        false => report.skipped("licences", "cargo-deny is not installed"),
    }
    Ok(())
}

/// What ran, and for how long.
#[derive(Default)]
struct Report {
    rows: Vec<(String, String)>,
}

impl Report {
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("== {name}");
        let start = Instant::now();
        let result = work().with_context(|| format!("step `{name}` failed"));
        let state = if result.is_ok() { "ok" } else { "FAILED" };
        self.row(name, &format!("{:>8}  {state}", seconds(start.elapsed())));
        result
    }

    fn skipped(&mut self, name: &str, why: &str) {
        println!("== {name}");
        self.row(name, &format!("{:>8}  DID NOT RUN: {why}", "-"));
    }

    fn row(&mut self, name: &str, text: &str) {
        self.rows.push((name.into(), text.into()));
    }

    fn print(&self) {
        println!("== summary");
        for (name, text) in &self.rows {
            println!("{name:<14}{text}");
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let status = Command::new("cargo")
        .args(arguments)
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(root)
        .status()
        .context("cargo")?;
    ensure!(status.success(), "cargo {}: {status}", arguments.join(" "));
    Ok(())
}

fn has_cargo_deny() -> bool {
    Command::new("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_is_reported_and_named() {
        let mut report = Report::default();
        report.step("first", || Ok(())).unwrap();
        report.skipped("second", "no tool");
        let error = report.step("third", || anyhow::bail!("broken"));
        assert_eq!(
            format!("{:#}", error.unwrap_err()),
            "step `third` failed: broken"
        );
        assert!(report.rows[0].1.ends_with("ok"));
        assert!(report.rows[1].1.ends_with("DID NOT RUN: no tool"));
        assert!(report.rows[2].1.ends_with("FAILED"));
    }
}
