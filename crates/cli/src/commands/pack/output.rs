//! Files are written whole or not at all.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Context;

/// Writes to a temporary name in the same folder, syncs, and renames.
pub fn write_atomically(
    file: &Path,
    content: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let writing = || format!("cannot write {}", file.display());
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    // What the umask leaves of this, as for any other file; the default is the owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder.unwrap_or(Path::new(".")));
    let temporary = temporary.with_context(writing)?;
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
