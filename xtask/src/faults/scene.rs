//! A small training run in its own folder, undisturbed and disturbed.

use super::{
    compare::Files,
    point::{CALLS, Fault, Point, calls, error_of},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// Kind of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lora,
    Full,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Lora, Kind::Full];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Lora => "lora",
            Kind::Full => "full",
        }
    }
}

/// Smallest available model.
const MODEL: &str = "crates/model/tests/golden/llama_gqa_tied";
const VOCABULARY: usize = 320;
/// Checkpoints are written and deleted, and one stays because it is the best.
const CONFIG: &str = "\
model = \"model\"
output = \"out\"
[data]
train = [\"train.jsonl\"]
eval = [\"eval.jsonl\"]
[packing]
capacity = 32
[run]
max_steps = 3
eval_every = 2
save_every = 1
keep = 1
";
const LORA: &str = "[lora]\nr = 2\nalpha = 4\ndropout = 0.1\n";

/// A run, its result and its calls.
pub(super) struct Scene {
    pub kind: Kind,
    program: PathBuf,
    folder: TempDir,
    expected: Files,
    calls: Vec<(String, u32)>,
}

impl Scene {
    pub(super) fn new(root: &Path, program: &Path, kind: Kind) -> Result<Self> {
        let mut scene = Self {
            kind,
            program: program.to_owned(),
            folder: tempfile::tempdir()?,
            expected: Files::default(),
            calls: Vec::new(),
        };
        fs::create_dir(scene.path("model"))?;
        for name in ["config.json", "model.safetensors"] {
            fs::copy(root.join(MODEL).join(name), scene.path("model").join(name))?;
        }
        fs::write(scene.path("model/tokenizer.json"), tokenizer())?;
        fs::write(scene.path("train.jsonl"), records(12))?;
        fs::write(scene.path("eval.jsonl"), records(3))?;
        let lora = if kind == Kind::Lora { LORA } else { "" };
        fs::write(scene.path("run.toml"), format!("{CONFIG}{lora}"))?;

        let output = scene.train(&["-e", CALLS], &[])?;
        ensure!(
            output.status.success(),
            "undisturbed, the run fails: {}",
            said(&output)
        );
        scene.calls = calls(&scene.trace()?);
        scene.expected = Files::read(&scene.path("out"))?;
        Ok(scene)
    }

    /// Every call that changes the output, as a point to kill the run and as a point to fail.
    pub(super) fn points(&self) -> impl Iterator<Item = Point> {
        self.calls.iter().flat_map(|(call, nth)| {
            [Fault::Kill, error_of(call)].map(|fault| Point {
                kind: self.kind,
                fault,
                call: call.clone(),
                nth: *nth,
            })
        })
    }

    /// Disturbs a run at a point, resumes it, and compares.
    pub(super) fn try_point(&self, point: &Point) -> Result<()> {
        let _ = fs::remove_dir_all(self.path("out"));
        let inject = format!(
            "inject={}:{}:when={}",
            point.call,
            point.fault.injection(),
            point.nth
        );
        let output = self.train(&["-e", CALLS, "-e", &inject], &[])?;
        let trace = self.trace()?;
        let met = match point.fault {
            Fault::Kill => output.status.signal() == Some(9) || output.status.code() == Some(137),
            Fault::Full | Fault::Broken => trace.contains("(INJECTED)"),
        };
        ensure!(met, "the run never came to this call");
        if point.fault != Fault::Kill {
            check_refusal(&output)?;
            if output.status.success() {
                return self.compare("it went on");
            }
        }
        let mut resumed = self.train(&[], &["--resume"])?;
        if !resumed.status.success() && !self.has_checkpoint() {
            let said = said(&resumed);
            ensure!(
                said.contains("without --resume"),
                "there is nothing to resume, and no word of it: {said}"
            );
            resumed = self.train(&[], &["--overwrite"])?;
        }
        ensure!(
            resumed.status.success(),
            "it cannot be resumed: {}",
            said(&resumed)
        );
        self.compare("resumed")
    }

    /// Whether there is a checkpoint to resume from.
    fn has_checkpoint(&self) -> bool {
        let entries = fs::read_dir(self.path("out/checkpoints"));
        let mut entries = entries.into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    }

    fn compare(&self, how: &str) -> Result<()> {
        let files = Files::read(&self.path("out"))?;
        match self.expected.difference(&files) {
            None => Ok(()),
            Some(difference) => bail!("{how}, {difference}"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trace(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.path("trace"))?).into_owned())
    }

    /// Runs training, under strace if `strace` has arguments.
    fn train(&self, strace: &[&str], more: &[&str]) -> Result<Output> {
        let mut command = match strace {
            [] => Command::new(&self.program),
            arguments => {
                let mut command = Command::new("strace");
                command
                    .args(["-f", "-y", "-qq", "-s", "16", "-o", "trace"])
                    .args(arguments)
                    .arg(&self.program);
                command
            }
        };
        command
            .args(["train", "run.toml", "--threads", "1"])
            .args(more)
            .current_dir(self.folder.path());
        command.output().context("cannot start the run")
    }
}

/// Checks that a run with a failed call continues, or ends with one clear error.
fn check_refusal(output: &Output) -> Result<()> {
    let said = said(output);
    ensure!(!said.contains("panicked"), "it panicked: {said}");
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => {
            let errors = said
                .lines()
                .filter(|line| line.starts_with("error:"))
                .count();
            ensure!(errors == 1, "{errors} errors instead of one: {said}");
            Ok(())
        }
        code => bail!("it ended with {code:?}: {said}"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn records(count: usize) -> String {
    let record = |i: usize| {
        let ids = (0..4 + i * 5 % 13).map(|j| (i * 7 + j * 3) % VOCABULARY);
        json!({"input_ids": ids.collect::<Vec<_>>()}).to_string() + "\n"
    };
    (0..count).map(record).collect()
}

/// A tokenizer with one word for each id.
fn tokenizer() -> String {
    let vocabulary: serde_json::Map<_, _> = (0..VOCABULARY)
        .map(|id| (format!("w{id}"), id.into()))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    })
    .to_string()
}
