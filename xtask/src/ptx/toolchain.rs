//! The CUDA compiler: pinned wheels in an ignored environment, installed on first use.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Packages that make up the compiler, its headers and its tools.
const PACKAGES: &[&str] = &[
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-nvdisasm==13.2.78",
];
/// Options for code that every supported GPU runs; the driver translates it for newer ones.
const FLAGS: &[&str] = &["-arch=compute_80", "-O3", "-std=c++17"];
/// Options of the driver's assembler, with a report.
pub(super) const ASSEMBLER_FLAGS: &[&str] = &["-O3", "-v"];
/// Options that print only the code.
pub(super) const DISASSEMBLER_FLAGS: &[&str] = &["--print-code", "--no-dataflow"];
/// Shared headers, `#include "tightrope/…"`.
pub(super) const HEADERS: &str = "crates/device/include";

/// An environment with the compiler.
pub(super) struct Toolchain {
    bin: PathBuf,
}

impl Toolchain {
    /// Opens the environment below `target`, and creates it if it does not exist.
    pub(super) fn install(root: &Path) -> Result<Self> {
        let environment = root.join("target/cuda");
        let stamp = environment.join("packages");
        let wanted = PACKAGES.join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Self::find(&environment);
        }
        println!("installing the CUDA compiler in {}", environment.display());
        let mut python = Command::new("python3");
        run(python.args(["-m", "venv", "--clear"]).arg(&environment))
            .context("the CUDA compiler needs Python 3 with its modules venv and pip")?;
        let mut pip = Command::new(environment.join("bin/python"));
        run(pip
            .args(["-m", "pip", "install", "--quiet", "--no-deps"])
            .arg("--disable-pip-version-check")
            .args(PACKAGES))
        .context("the CUDA compiler comes through pip, which failed")?;
        let toolchain = Self::find(&environment)?;
        fs::write(&stamp, wanted)?;
        Ok(toolchain)
    }

    fn find(environment: &Path) -> Result<Self> {
        for version in fs::read_dir(environment.join("lib"))? {
            let bin = version?.path().join("site-packages/nvidia/cu13/bin");
            if bin.join("nvcc").exists() {
                return Ok(Self { bin });
            }
        }
        anyhow::bail!("no nvcc in {}", environment.display())
    }

    fn nvcc(&self, root: &Path) -> Command {
        let mut nvcc = Command::new(self.bin.join("nvcc"));
        nvcc.current_dir(root).args(FLAGS).args(["-I", HEADERS]);
        nvcc
    }

    /// PTX of a source file. Paths are relative to the root, so that no other path is in the result.
    pub(super) fn compile(&self, root: &Path, source: &Path, ptx: &Path) -> Result<()> {
        run(self.nvcc(root).arg("-ptx").arg(source).arg("-o").arg(ptx))?;
        Ok(())
    }

    /// Assembles PTX for an architecture; returns the assembler's report on every kernel.
    pub(super) fn assemble(&self, ptx: &Path, architecture: &str, cubin: &Path) -> Result<String> {
        let mut ptxas = Command::new(self.bin.join("ptxas"));
        let output = ptxas.args(ASSEMBLER_FLAGS).arg("-arch").arg(architecture);
        run_both(output.arg(ptx).arg("-o").arg(cubin)).map(|(_, log)| log)
    }

    /// Disassembles the assembled code.
    pub(super) fn disassemble(&self, cubin: &Path) -> Result<String> {
        let mut nvdisasm = Command::new(self.bin.join("nvdisasm"));
        run(nvdisasm.args(DISASSEMBLER_FLAGS).arg(cubin))
    }

    /// The source after the preprocessor.
    pub(super) fn preprocess(&self, root: &Path, source: &Path) -> Result<String> {
        run(self.nvcc(root).arg("-E").arg(source))
    }
}

/// Facts besides the sources that the result depends on.
pub(super) fn identity() -> String {
    format!("{} {}", PACKAGES.join(" "), FLAGS.join(" "))
}

/// Standard output of a command; an error with its standard error if it fails.
pub(super) fn run(command: &mut Command) -> Result<String> {
    run_both(command).map(|(output, _)| output)
}

/// Standard output and standard error of a command; an error with both if it fails.
fn run_both(command: &mut Command) -> Result<(String, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| name.clone())?;
    let [out, err] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(
        output.status.success(),
        "{name}: {}\n{out}{err}",
        output.status
    );
    Ok((out, err))
}
