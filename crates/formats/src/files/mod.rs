//! Writes files and folders that appear whole or not at all, and digests files.

mod digest;
mod temporary;

pub use digest::{digest, hexadecimal};
pub use temporary::{Temporary, is_temporary, remove_at_once, remove_stale, remove_temporaries};

use crate::FormatError;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Writes a file whole or not at all.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let (temporary, mut file) = Temporary::file(path)?;
    file.write_all(contents)?;
    temporary.finish()
}

/// Writes indented JSON with a final newline, whole or not at all.
pub fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), FormatError> {
    write(path, format!("{value:#}\n").as_bytes()).map_err(FormatError::io(path))
}

/// Makes renames and new files in a folder durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    // On other systems a folder cannot be opened, and renames need no help.
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Fills `bytes` from a place in a file, wherever other threads read. A file that another process has
/// cut is an error; a map of it would end this process.
pub fn read_at(file: &File, bytes: &mut [u8], place: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, place);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            let place = place + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], place)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

/// Folder that holds `path`.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Lists every file below `folder`, sorted, as a relative path with `/` between the parts.
pub fn files_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), String::new())];
    while let Some((path, prefix)) = open.pop() {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                open.push((entry.path(), format!("{name}/")));
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}
