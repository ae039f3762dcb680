//! Files are written whole or not at all.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use tempfile::NamedTempFile;

/// Writes to a temporary name in the same folder, syncs, and renames.
pub fn write_atomically(
    file: &Path,
    content: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let writing = || format!("cannot write {}", file.display());
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let temporary =
        NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(writing)?;
    let mut out = BufWriter::new(temporary);
    content(&mut out).with_context(writing)?;
    let temporary = out
        .into_inner()
        .map_err(|e| e.into_error())
        .with_context(writing)?;
    temporary.as_file().sync_all().with_context(writing)?;
    temporary
        .persist(file)
        .map_err(|e| e.error)
        .with_context(writing)?;
    Ok(())
}
