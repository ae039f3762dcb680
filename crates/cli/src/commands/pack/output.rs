//! Writes files whole or not at all.

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, ensure};

use super::Files;
use crate::signals;
use tightrope_data::packing::Layout;
use tightrope_formats::files::{Temporary, folder_of};
use tightrope_train::{Config, StopFlag};

/// Beginning of every stored packing.
pub(super) const PACKING: &str = "{\"layout\":";

/// Refuses to store packs that no run could use.
pub(super) fn check_steps(config: &Config, files: &Files) -> anyhow::Result<()> {
    let packs = config.packing.mode.layout() == Layout::Packed;
    ensure!(
        files.write.is_none() || !packs || config.batch.sequences_per_step.is_none(),
        "with batch.sequences_per_step each step is packed by itself, and no stored packing can be \
         used; take packs (batch.packs_per_step), or leave out --write"
    );
    Ok(())
}

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
