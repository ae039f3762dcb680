//! `cargo xtask ci`: runs everything that has to pass, in order, with timings.

#[cfg(test)]
mod commands;
mod examples;
mod start;

use crate::{faults, fuzz, ptx, tidy};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use toml::Table;

/// Arguments of cargo for each step. All steps share one profile, so that dependencies are compiled
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
        "documentation",
        &["doc", "--release", "--workspace", "--no-deps", "--locked"],
    ),
    // The build precedes the README's commands, so that their time limit does not include it.
    ("build", &["build", "--release", "--locked"]),
];
/// For the packages that are published, what stands before them and behind them: the same lints
/// without features; packed as for a registry, and not compiled once more.
const PUBLISHED: &[(&str, &[&str], &[&str])] = &[
    (
        "no features",
        &["clippy", "--release", "--no-default-features", "--locked"],
        &["--", "-D", "warnings"],
    ),
    (
        "packages",
        &[
            "package",
            "--quiet",
            "--locked",
            "--no-verify",
            "--allow-dirty",
        ],
        &[],
    ),
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
    // This precedes the tests, which run the committed PTX.
    report.step("kernels", || ptx::run(root, true))?;
    for (name, arguments) in CARGO {
        report.step(name, || cargo(root, arguments))?;
    }
    let published = published(root)?;
    for (name, before, behind) in PUBLISHED {
        let packages = published.iter().map(String::as_str);
        let arguments = before.iter().copied().chain(packages);
        let arguments: Vec<&str> = arguments.chain(behind.iter().copied()).collect();
        report.step(name, || cargo(root, &arguments))?;
    }
    for (name, words) in start::commands(root)? {
        report.step(&name, || start::run(root, &words))?;
    }
    // Behind the tests, which build them.
    report.step("examples", || examples::run(root))?;
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

/// Steps with their results and times.
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

/// `-p` with the name of each package that may be published.
fn published(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let manifest: Table = fs::read_to_string(entry?.path().join("Cargo.toml"))?.parse()?;
        let package = &manifest["package"];
        let name = package["name"]
            .as_str()
            .context("a package without a name")?;
        if package.get("publish") != Some(&false.into()) {
            names.push(format!("-p{name}"));
        }
    }
    Ok(names)
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
    fn what_serves_tests_alone_is_not_published() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let published = published(root).unwrap();
        assert!(published.contains(&"-ptightrope-packing".to_owned()));
        for name in ["testkit", "emulator", "fuzz"] {
            assert!(
                !published.contains(&format!("-ptightrope-{name}")),
                "{name}"
            );
        }
    }

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
