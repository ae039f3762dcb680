//! Writes files whole or not at all.

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, ensure};

use crate::signals;
use tightrope_formats::files::{Temporary, folder_of};
use tightrope_train::StopFlag;

/// Beginning of every stored packing.
pub(super) const PACKING: &str = "{\"layout\":";

/// Fails early if [`write_atomically`] would fail after the work, or if it would replace a file that
/// does not begin as the files that this command writes.
pub(super) fn check(file: &Path, beginning: &str) -> anyhow::Result<()> {
    let (name, folder) = (file.display(), folder_of(file));
    ensure!(
        folder.is_dir(),
        "cannot write {name}: there is no folder {}",
        folder.display()
    );
    ensure!(!file.is_dir(), "cannot write {name}: it is a folder");
    if file.exists() {
        let mut start = Vec::new();
        let is_file = file.is_file();
        if is_file {
            let open = File::open(file).with_context(|| format!("cannot replace {name}"))?;
            open.take(beginning.len() as u64).read_to_end(&mut start)?;
        }
        ensure!(
            is_file && start == beginning.as_bytes(),
            "{name}: this command did not write this file, so it is not replaced; move it away, or \
             give another name"
        );
    }
    Ok(())
}

/// Writes to a temporary name in the same folder, syncs, and renames. A signal that ends the
/// process removes the temporary file.
pub(super) fn write_atomically(
    file: &Path,
    content: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let writing = || format!("cannot write {}", file.display());
    signals::stop_on_signal(StopFlag::default(), || ())?;
    let (temporary, out) = Temporary::file(file).with_context(writing)?;
    let mut out = BufWriter::new(out);
    content(&mut out).with_context(writing)?;
    out.flush().with_context(writing)?;
    temporary.finish().with_context(writing)
}
