//! Files are written whole or not at all.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::signals;

/// Fails now if [`write_atomically`] would fail after the work.
pub fn check(file: &Path) -> anyhow::Result<()> {
    let (name, folder) = (file.display(), folder(file));
    ensure!(
        folder.is_dir(),
        "cannot write {name}: there is no folder {}",
        folder.display()
    );
    ensure!(!file.is_dir(), "cannot write {name}: it is a folder");
    Ok(())
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => ".".into(),
    }
}

/// Writes to a temporary name in the same folder, syncs, and renames. A signal that ends the
/// process takes the temporary file with it.
pub fn write_atomically(
    file: &Path,
    content: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let writing = || format!("cannot write {}", file.display());
    let mut builder = tempfile::Builder::new();
    // What the umask leaves of this, as for any other file; the default is the owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder(file)).with_context(writing)?;
    signals::remove_on_signal(temporary.path().to_owned())?;
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
