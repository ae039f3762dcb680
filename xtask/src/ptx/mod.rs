//! `cargo xtask ptx`: translates device code to PTX, with matching launch code.

mod architecture;
mod assembly;
mod expectations;
mod lock;
mod table;
mod toolchain;
mod wrappers;

use anyhow::{Context, Result, ensure};
use lock::Lock;
use rayon::prelude::*;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use toolchain::{HEADERS, Toolchain};

const SOURCE: &str = "kernel.cu";

/// Translates every `kernel.cu` that has changed since the lock file was written, and writes
/// `kernel.ptx` and `kernel.rs` beside it. With `check`, it translates all of them and changes
/// nothing, and returns an error if a committed file differs. Then it assembles all PTX for every
/// architecture, and returns an error if a kernel uses local memory, lacks an instruction that its
/// source expects, or fits on no multiprocessor. The resources are written into `docs/kernels.md`,
/// or compared with it.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let headers = lock::hash_files(
        root,
        &find(root, Path::new(HEADERS), &|name| name.ends_with(".cuh"))?,
    )?;
    let sources = find(root, Path::new("crates"), &|name| name == SOURCE)?;
    ensure!(!sources.is_empty(), "no {SOURCE} below {}", root.display());
    let toolchain = Toolchain::install(root)?;
    let old = Lock::read(root)?;
    let mut new = Lock::new(&headers);
    let mut wanted = Vec::new();
    for source in &sources {
        let hash = lock::hash_files(root, std::slice::from_ref(source))?;
        let products = [source.with_extension("ptx"), source.with_extension("rs")];
        if !check && old.is_current(root, &new, source, &hash, &products)? {
            new.keep(&old, source);
        } else {
            wanted.push((source, hash, products));
        }
    }
    let texts: Vec<_> = wanted
        .par_iter()
        .map(|(source, ..)| translate(&toolchain, root, source))
        .collect();
    let mut stale = Vec::new();
    for ((source, hash, products), texts) in wanted.into_iter().zip(texts) {
        let texts = texts.with_context(|| source.display().to_string())?;
        for (path, text) in products.into_iter().zip(&texts) {
            if !check {
                fs::write(root.join(&path), text)?;
                println!("wrote {} ({} lines)", path.display(), text.lines().count());
            } else if fs::read_to_string(root.join(&path)).ok().as_ref() != Some(text) {
                stale.push(path);
            }
        }
        new.insert(source, hash, &texts);
    }
    if !check {
        new.write(root)?;
    } else if old != new {
        stale.push(lock::FILE.into());
    }
    is_current(&stale)?;
    let modules = assembly::assemble(&toolchain, root, &sources)?;
    assembly::check(&modules)?;
    let text = table::render(&modules);
    if fs::read_to_string(root.join(table::FILE)).ok() != Some(text.clone()) {
        if check {
            is_current(&[table::FILE.into()])?;
        }
        fs::write(root.join(table::FILE), text)?;
        println!("wrote {}", table::FILE);
    }
    println!("{}", assembly::summary(&modules));
    Ok(())
}

/// Returns an error that names the files that differ from their sources.
fn is_current(stale: &[PathBuf]) -> Result<()> {
    let names: Vec<_> = stale.iter().map(|path| path.to_string_lossy()).collect();
    ensure!(
        names.is_empty(),
        "out of date, run `cargo xtask ptx`: {}",
        names.join(", ")
    );
    Ok(())
}

/// Makes the PTX and the launch code.
fn translate(toolchain: &Toolchain, root: &Path, source: &Path) -> Result<[String; 2]> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kernel.ptx");
    toolchain.compile(root, source, &file)?;
    let ptx = fs::read_to_string(&file)?;
    let kernels = wrappers::declared(&toolchain.preprocess(root, source)?)?;
    wrappers::check(&kernels, &ptx)?;
    let file = folder.path().join("kernel.rs");
    fs::write(&file, wrappers::generate(&kernels)?)?;
    toolchain::run(
        Command::new("rustfmt")
            .args(["--edition", "2024"])
            .arg(&file),
    )?;
    Ok([ptx, fs::read_to_string(&file)?])
}

/// Files below `folder` with the right name, relative to the root and in order.
fn find(root: &Path, folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = folder.join(&name);
        if entry.file_type()?.is_dir() {
            found.extend(find(root, &path, wanted)?);
        } else if wanted(&name) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
