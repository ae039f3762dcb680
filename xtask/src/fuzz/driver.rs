//! Builds and runs the program of crates/fuzz, within limits.

use super::log::{self, Ended};
use anyhow::{Context, Result, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Time limit of an input in seconds; more is a fault.
const SECONDS: u32 = 20;
/// Limit of the address space in KiB: a larger request fails and ends the process.
const ADDRESS_SPACE: u32 = 2 << 20;
/// Limit of memory in use in MiB.
const MEMORY: u32 = 1 << 10;
/// Largest size of an input in bytes; longer inputs find no more than shorter ones.
const LONGEST: u32 = 1 << 16;

/// The program, and folders for what it writes.
pub(super) struct Driver {
    program: PathBuf,
    root: PathBuf,
    scratch: TempDir,
}

/// Whether C++ can be compiled.
pub(super) fn has_cxx() -> bool {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(compiler);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Driver {
    pub(super) fn build(root: &Path) -> Result<Self> {
        let program = crate::build::program(root, "--bin", "fuzz", |command| {
            let wrapper = root.join("crates/fuzz/instrument.sh");
            command
                .arg("--features=tightrope-fuzz/libfuzzer")
                .env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        })?;
        // The scratch folder is in memory if possible, because most targets write their input to a
        // file.
        let memory = Path::new("/dev/shm");
        let scratch = match memory.is_dir() {
            true => tempfile::tempdir_in(memory)?,
            false => tempfile::tempdir()?,
        };
        Ok(Self {
            program,
            root: root.to_owned(),
            scratch,
        })
    }

    /// Names of all targets.
    pub(super) fn targets(&self) -> Result<Vec<String>> {
        let output = Command::new(&self.program).output()?;
        let names = String::from_utf8(output.stdout)?;
        Ok(names.lines().map(String::from).collect())
    }

    /// Runs one target for a time, or until it finds a fault.
    pub(super) fn run(
        &self,
        target: &str,
        corpus: &Path,
        time: Duration,
        seed: u64,
    ) -> Result<Ended> {
        let seeds = self.scratch.path().join("seeds");
        fs::create_dir_all(&seeds)?;
        let artifacts = self.root.join("target/fuzz/found").join(target);
        fs::create_dir_all(&artifacts)?;
        let kept = self.root.join("crates/fuzz/found").join(target);
        let mut command = self.command(target)?;
        command
            .env("FUZZ_SEEDS", &seeds)
            .arg(corpus)
            .arg(&seeds)
            .args(kept.is_dir().then_some(kept))
            .arg(format!("-seed={seed}"))
            .arg(format!("-max_total_time={}", time.as_secs().max(1)))
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-dict={}", seeds.with_extension("words").display()))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1");
        let output = command.output()?;
        fs::remove_dir_all(&seeds)?;
        let text = String::from_utf8_lossy(&output.stderr);
        let mut ended = log::read(&text, output.status.success());
        if let Some((what, input)) = &mut ended.fault
            && input.as_os_str().is_empty()
        {
            // The process ended so suddenly that libFuzzer could not write the input.
            *input = artifacts.join(format!(
                "ended-{}",
                crate::digest::sha256(&[what.as_bytes()])
            ));
            fs::copy(self.current(), &*input).with_context(|| text.into_owned())?;
        }
        Ok(ended)
    }

    /// Runs one input, and shows its output.
    pub(super) fn again(&self, target: &str, input: &Path) -> Result<()> {
        ensure!(input.is_file(), "{}: no such file", input.display());
        let status = self.command(target)?.arg(input).status()?;
        ensure!(status.success(), "{}: {status}", input.display());
        println!("{}: no fault", input.display());
        Ok(())
    }

    fn current(&self) -> PathBuf {
        self.scratch.path().join("current")
    }

    fn command(&self, target: &str) -> Result<Command> {
        // Files left by a process that ended suddenly.
        let temporary = self.scratch.path().join("tmp");
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir(&temporary)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -v $0 && exec \"$@\""])
            .arg(ADDRESS_SPACE.to_string())
            .arg(&self.program)
            .env("FUZZ_TARGET", target)
            .env("FUZZ_CURRENT", self.current())
            .env("TMPDIR", &temporary)
            .env("RAYON_NUM_THREADS", "1")
            .arg(format!("-timeout={SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY}"));
        Ok(command)
    }
}
