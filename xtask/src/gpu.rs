//! `cargo xtask gpu`: everything that only a machine with a GPU can show, in one report.

use crate::bench;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// Crates whose tests use the GPU.
const TESTED: &[&str] = &["device", "rope", "kernels", "model", "train"];
/// The training run, and what it needs with the item of `cargo xtask fetch` that brings it.
const CONFIGURATION: &str = "examples/smollm2-alpaca.toml";
const NEEDED: [(&str, &str); 2] = [
    ("models/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"),
    ("datasets/alpaca_en_demo.json", "alpaca"),
];
/// How the trainer says that it knows no GPU.
const CANNOT_TRAIN: &str = "this program was built without it";

/// What became of a step.
#[derive(Debug, PartialEq)]
enum State {
    Ok(Value),
    Skipped(String),
    Failed(String),
}

/// Tests, benchmarks and a short training run on the GPU. Every step is tried; the report is written
/// whatever becomes of them. Errors without a GPU, and if a step failed.
pub fn run(root: &Path) -> Result<()> {
    let gpu = tightrope_benches::gpu().context("this chore needs an NVIDIA GPU and its driver")?;
    println!("{gpu}");
    let mut steps = Vec::new();
    let mut failed = Vec::new();
    type Step = fn(&Path) -> Result<State>;
    let all: [(&str, Step); 3] = [
        ("tests", tests),
        ("kernels", kernels),
        ("training", training),
    ];
    for (name, step) in all {
        println!("== {name}");
        let start = Instant::now();
        let state = step(root).unwrap_or_else(|error| State::Failed(format!("{error:#}")));
        if state.is_failure() {
            failed.push(name);
        }
        steps.push(state.row(name, start.elapsed().as_secs_f64()));
    }
    println!("== summary");
    for step in &steps {
        println!("{}", summary(step));
    }
    let mut report = bench::described(root, "gpu", steps);
    report["gpu"] = gpu.into();
    report["driver"] = json!(bench::output(
        "nvidia-smi",
        &[
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader"
        ],
    ));
    bench::store(&bench::dated(root, "gpu", &report), &report)?;
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

impl State {
    fn is_failure(&self) -> bool {
        matches!(self, State::Failed(_))
    }

    fn row(self, step: &str, seconds: f64) -> tightrope_benches::Row {
        let (state, detail) = match self {
            State::Ok(detail) => ("ok", detail),
            State::Skipped(why) => ("DID NOT RUN", why.into()),
            State::Failed(why) => ("FAILED", why.into()),
        };
        let fields = [
            ("step", json!(step)),
            ("state", json!(state)),
            ("seconds", json!(seconds)),
            ("detail", detail),
        ];
        let fields = fields.into_iter();
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// A step in one line.
fn summary(step: &tightrope_benches::Row) -> String {
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    let first = text("detail").lines().next().unwrap_or_default();
    let line = format!(
        "{:<10}{:>8.1} s  {}  {first}",
        text("step"),
        step["seconds"].as_f64().unwrap_or(f64::NAN),
        text("state")
    );
    line.trim_end().to_owned()
}

/// The same tests as on the emulator, on the GPU.
fn tests(root: &Path) -> Result<State> {
    let packages = TESTED.iter().map(|name| format!("tightrope-{name}"));
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root)
        .args(["test", "--release", "--no-fail-fast"])
        .args(packages.flat_map(|name| ["-p".to_owned(), name]))
        .env("TIGHTROPE_TEST_CUDA", "hardware");
    let (succeeded, lines) = follow(&mut cargo)?;
    Ok(tested(succeeded, &lines))
}

/// From what `cargo test` prints.
fn tested(succeeded: bool, lines: &[String]) -> State {
    let tests = lines.iter().filter_map(|line| line.strip_prefix("test "));
    let ending = |end: &str| -> Vec<&str> {
        let tests = tests.clone();
        tests.filter_map(|test| test.strip_suffix(end)).collect()
    };
    let (passed, failed) = (ending(" ... ok").len(), ending(" ... FAILED"));
    match (succeeded, passed) {
        (true, 0) => State::Failed("no test ran".into()),
        (true, _) => State::Ok(json!({ "passed": passed })),
        (false, _) => State::Failed(format!(
            "{passed} tests passed; failed: {}",
            failed.join(", ")
        )),
    }
}

/// Times of every operation against the roofline.
fn kernels(root: &Path) -> Result<State> {
    let run = bench::measure(root, bench::find("kernels")?)?;
    Ok(State::Ok(run["rows"].clone()))
}

/// A few steps of a real model.
fn training(root: &Path) -> Result<State> {
    for (file, item) in NEEDED {
        if !root.join(file).exists() {
            let why = format!("{file} is not there: cargo xtask fetch {item}");
            return Ok(State::Skipped(why));
        }
    }
    let folder = tempfile::tempdir()?;
    let output = json!(folder.path().join("run")).to_string();
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root)
        .args(["run", "--release", "--quiet", "-p", "tightrope-cli", "--"])
        .args(["train", CONFIGURATION])
        .args(["--set", "device=cuda", "--set", "run.max_steps=10"])
        .args(["--set", &format!("output={output}")]);
    let finished = cargo.output().context("cargo")?;
    let [text, errors] = [finished.stdout, finished.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    print!("{text}");
    eprint!("{errors}");
    Ok(trained(finished.status.success(), &text, &errors))
}

/// From what the trainer prints.
fn trained(succeeded: bool, text: &str, errors: &str) -> State {
    let reason = errors.lines().find(|line| line.contains(CANNOT_TRAIN));
    match (succeeded, reason) {
        (true, _) => State::Ok(json!(text)),
        (false, Some(why)) => State::Skipped(format!("the trainer cannot use a GPU yet: {why}")),
        (false, None) => State::Failed(errors.trim().into()),
    }
}

/// Prints what a program prints, line by line, and keeps it.
fn follow(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo")?;
    let output = child.stdout.take().context("a pipe")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        lines.push(line);
    }
    Ok((child.wait()?.success(), lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn failed_tests_are_named_and_none_is_a_failure() {
        let text = "running 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ok\n\
            test result: FAILED. 2 passed; 1 failed";
        let expected = State::Failed("2 tests passed; failed: c".into());
        assert_eq!(tested(false, &lines(text)), expected);
        let expected = State::Ok(json!({ "passed": 1 }));
        assert_eq!(tested(true, &lines("test a ... ok")), expected);
        assert!(tested(true, &lines("running 0 tests")).is_failure());
        assert!(tested(false, &lines("error: could not compile")).is_failure());
    }

    #[test]
    fn a_trainer_without_a_gpu_is_skipped_and_other_errors_fail() {
        let known = format!("error: device = \"cuda\": {CANNOT_TRAIN}; use \"cpu\"");
        let state = trained(false, "", &known);
        assert!(matches!(state, State::Skipped(why) if why.ends_with(&known)));
        assert!(trained(false, "", "error: out of memory").is_failure());
        assert_eq!(trained(true, "loss 1.0", ""), State::Ok(json!("loss 1.0")));
    }

    #[test]
    fn a_step_is_one_line_in_the_summary() {
        let row = State::Skipped("no model\nat all".into()).row("training", 1.25);
        assert_eq!(summary(&row), "training       1.2 s  DID NOT RUN  no model");
        let row = State::Ok(json!({ "passed": 3 })).row("tests", 60.0);
        assert_eq!(summary(&row), "tests         60.0 s  ok");
    }
}
