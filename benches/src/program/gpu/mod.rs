//! `cargo xtask gpu`: runs everything that needs a machine with a GPU, and writes one report.

mod training;

use crate::{bench, emulator};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};
use tightrope_benches::Row;

/// Crates whose tests use the GPU.
const TESTED: &[&str] = &["device", "kernels", "model", "train", "run", "cli"];

/// Result of a step.
#[derive(Debug, PartialEq)]
enum State {
    Ok(Value),
    Skipped(String),
    Failed(String),
}

/// The machine for the steps.
struct Machine {
    root: PathBuf,
    /// Libraries that stand in for a GPU; `None` if there is a GPU.
    stand_ins: Option<OsString>,
}

type Step = fn(&Machine) -> Result<State>;
const STEPS: [(&str, Step); 4] = [
    ("tests", Machine::tests),
    ("kernels", Machine::kernels),
    ("training", training::parity),
    ("model", training::real_model),
];

/// Runs tests, benchmarks and short training runs on the GPU. Every step runs, and the report is
/// written whatever their results are, into `json` or else into `benches/runs/`. Returns an error
/// if there is no GPU, or if a step failed.
///
/// On the emulator the same steps run, and the report says so; it is written only into `json`.
pub(crate) fn run(root: &Path, emulated: bool, json: Option<&Path>) -> Result<()> {
    let machine = Machine {
        root: root.to_owned(),
        stand_ins: match emulated {
            true => Some(emulator::build(root)?),
            false => None,
        },
    };
    let gpu = match emulated {
        true => "none: EMULATED, nothing here says anything about a GPU".to_owned(),
        false => tightrope_benches::gpu().context(
            "this chore needs an NVIDIA GPU and its driver (--emulated tries it without)",
        )?,
    };
    println!("GPU: {gpu}");
    let mut steps = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        println!("== {name}");
        let start = Instant::now();
        let state = step(&machine).unwrap_or_else(|error| State::Failed(format!("{error:#}")));
        if state.is_failure() {
            failed.push(name);
        }
        steps.push(state.row(name, start.elapsed().as_secs_f64()));
    }
    println!("== summary");
    println!("GPU: {gpu}");
    for step in &steps {
        println!("{}", summary(step));
    }
    let mut report = bench::described(root, "gpu", steps);
    report["gpu"] = gpu.into();
    report["emulated"] = emulated.into();
    report["driver"] = json!(bench::output(
        "nvidia-smi",
        &[
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader"
        ],
    ));
    match json {
        Some(path) => bench::store(path, &report)?,
        None if emulated => {}
        None => bench::store(&bench::dated(root, "gpu", &report), &report)?,
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

impl State {
    fn is_failure(&self) -> bool {
        matches!(self, State::Failed(_))
    }

    fn row(self, step: &str, seconds: f64) -> Row {
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

/// Summary of a step in one line.
fn summary(step: &Row) -> String {
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

impl Machine {
    /// Runs the usual tests on the GPU.
    fn tests(&self) -> Result<State> {
        let packages = TESTED.iter().map(|name| format!("tightrope-{name}"));
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.root)
            .args(["test", "--release", "--no-fail-fast"])
            .args(packages.flat_map(|name| ["-p".to_owned(), name]));
        match self.stand_ins {
            // The tests load the emulator themselves.
            Some(_) => cargo.env_remove("TIGHTROPE_TEST_CUDA"),
            None => cargo.env("TIGHTROPE_TEST_CUDA", "hardware"),
        };
        let (succeeded, lines) = follow(&mut cargo)?;
        Ok(tested(succeeded, &lines))
    }

    /// Compares the times of every operation with the roofline, or counts on the emulator.
    fn kernels(&self) -> Result<State> {
        if self.stand_ins.is_none() {
            let run = bench::measure(&self.root, bench::find("kernels")?)?;
            return Ok(State::Ok(run["rows"].clone()));
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("rows.json");
        let status = Command::new(env::current_exe()?)
            .args(["bench", "kernels", "--emulated", "--json"])
            .arg(&file)
            .status()?;
        ensure!(status.success(), "bench kernels --emulated: {status}");
        let run: Value = serde_json::from_slice(&fs::read(file)?)?;
        Ok(State::Ok(run["rows"].clone()))
    }

    /// Runs the trainer with these arguments; returns its standard output, or an error with its
    /// messages.
    fn tightrope(&self, folder: &Path, arguments: &[String]) -> Result<String> {
        println!("$ tightrope {}", arguments.join(" "));
        // The trainer lies beside this program, whose profile `cargo xtask` chooses.
        let mut command = Command::new(env::current_exe()?.with_file_name("tightrope"));
        command.current_dir(folder).args(arguments);
        if let Some(libraries) = &self.stand_ins {
            command.env("LD_PRELOAD", libraries);
        }
        let output = command.output().context("tightrope")?;
        let [text, errors] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ensure!(output.status.success(), "tightrope: {}", errors.trim());
        Ok(text)
    }
}

/// Parses the output of `cargo test`.
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

/// Prints the output of a program line by line, and returns it.
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
    fn a_step_is_one_line_in_the_summary() {
        let row = State::Skipped("no model\nat all".into()).row("training", 1.25);
        assert_eq!(summary(&row), "training       1.2 s  DID NOT RUN  no model");
        let row = State::Ok(json!({ "passed": 3 })).row("tests", 60.0);
        assert_eq!(summary(&row), "tests         60.0 s  ok");
    }
}
