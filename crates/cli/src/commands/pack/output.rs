//! Writes files whole or not at all.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, ensure};

use crate::signals;
use tightrope_formats::files::{Temporary, folder_of};
use tightrope_train::StopFlag;

/// Fails early if [`write_atomically`] would fail after the work.
pub(super) fn check(file: &Path) -> anyhow::Result<()> {
    let (name, folder) = (file.display(), folder_of(file));
    ensure!(
        folder.is_dir(),
        "cannot write {name}: there is no folder {}",
        folder.display()
    );
    ensure!(!file.is_dir(), "cannot write {name}: it is a folder");
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
