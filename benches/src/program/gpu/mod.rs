//! `cargo xtask gpu`: everything that only a machine with a GPU can show, in one report.

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
const TESTED: &[&str] = &["device", "kernels", "model", "train", "cli"];

/// What became of a step.
#[derive(Debug, PartialEq)]
enum State {
    Ok(Value),
    Skipped(String),
    Failed(String),
}

/// What the steps run on.
struct Machine {
    root: PathBuf,
    /// Libraries that stand in for a GPU; none where there is one.
    stand_ins: Option<OsString>,
}

type Step = fn(&Machine) -> Result<State>;
const STEPS: [(&str, Step); 4] = [
    ("tests", Machine::tests),
    ("kernels", Machine::kernels),
    ("training", training::parity),
    ("model", training::real_model),
];

/// Tests, benchmarks and short training runs on the GPU. Every step is tried; the report is written
/// whatever becomes of them, into `json` or else into `benches/runs/`. Errors without a GPU, and if
/// a step failed.
///
/// On the emulator the same steps are tried, which the report says; it goes nowhere but into `json`.
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

/// A step in one line.
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
    /// The same tests as everywhere, on the GPU.
    fn tests(&self) -> Result<State> {
        let packages = TESTED.iter().map(|name| format!("tightrope-{name}"));
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.root)
            .args(["test", "--release", "--no-fail-fast"])
            .args(packages.flat_map(|name| ["-p".to_owned(), name]));
        match self.stand_ins {
            // They load it themselves.
            Some(_) => cargo.env_remove("TIGHTROPE_TEST_CUDA"),
            None => cargo.env("TIGHTROPE_TEST_CUDA", "hardware"),
        };
        let (succeeded, lines) = follow(&mut cargo)?;
        Ok(tested(succeeded, &lines))
    }

    /// Times of every operation against the roofline; counts on the emulator.
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

    /// The trainer with these arguments; its standard output, or an error with what it said.
    fn tightrope(&self, folder: &Path, arguments: &[String]) -> Result<String> {
        println!("$ tightrope {}", arguments.join(" "));
        // Beside this program, whose profile `cargo xtask` chooses.
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
    fn a_step_is_one_line_in_the_summary() {
        let row = State::Skipped("no model\nat all".into()).row("training", 1.25);
        assert_eq!(summary(&row), "training       1.2 s  DID NOT RUN  no model");
        let row = State::Ok(json!({ "passed": 3 })).row("tests", 60.0);
        assert_eq!(summary(&row), "tests         60.0 s  ok");
    }
}
