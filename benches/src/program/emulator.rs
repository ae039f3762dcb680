//! Starts processes that find the emulator instead of a GPU, first of all this chore again.

use anyhow::{Context, Result, ensure};
use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tightrope_benches::EMULATOR_REPORT;
use toml::Table;

/// Folders of stand-in libraries.
const STAND_INS: &str = "crates/emulator";

/// Whether this process was started with the emulator.
pub(crate) fn is_loaded() -> bool {
    env::var_os(EMULATOR_REPORT).is_some()
}

/// Runs this chore again with the stand-in libraries loaded. They have the names of the real
/// libraries, so that every search finds them.
pub(crate) fn run_again(root: &Path) -> Result<()> {
    let libraries = build(root)?;
    let folder = tempfile::tempdir()?;
    let status = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env("LD_PRELOAD", libraries)
        .env(EMULATOR_REPORT, folder.path().join("launches.tsv"))
        .status()?;
    ensure!(status.success(), "on the emulator: {status}");
    Ok(())
}

/// Builds the stand-in libraries, and returns the value of `LD_PRELOAD`.
pub(crate) fn build(root: &Path) -> Result<OsString> {
    let (packages, files) = stand_ins(root)?;
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    build_packages(root, &packages)?;
    let this = env::current_exe()?;
    let paths: Vec<PathBuf> = files.iter().map(|file| this.with_file_name(file)).collect();
    for path in &paths {
        ensure!(path.exists(), "{} was not built", path.display());
    }
    Ok(env::join_paths(paths)?)
}

/// Builds packages with the profile of this program, so that their files lie beside it.
pub(crate) fn build_packages(root: &Path, packages: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .current_dir(root)
        .args(["build", "--release", "--quiet"])
        .args(packages.iter().flat_map(|name| ["-p", name]))
        .status()
        .context("cargo")?;
    ensure!(
        status.success(),
        "building {}: {status}",
        packages.join(", ")
    );
    Ok(())
}

/// Packages of the stand-in libraries, and the files that they produce.
fn stand_ins(root: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut packages, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(root.join(STAND_INS))? {
        let path = entry?.path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let manifest: Table = text.parse().with_context(|| path.display().to_string())?;
        let name = |table: &str| manifest.get(table)?.get("name")?.as_str();
        let names = name("package").zip(name("lib"));
        let (package, library) = names.with_context(|| path.display().to_string())?;
        packages.push(package.to_owned());
        files.push(format!("lib{library}.so"));
    }
    Ok((packages, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_driver_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (packages, files) = stand_ins(root).unwrap();
        assert!(packages.iter().any(|name| name == "tightrope-libcuda"));
        assert!(files.iter().any(|name| name == "libcuda_emulator.so"));
    }
}
