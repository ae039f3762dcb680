//! Helpers for the file system: digests and unused names.

use crate::TrainError;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Size and SHA-256 (in hexadecimal) of a file, read in pieces.
pub(crate) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((bytes, hexadecimal(&hash.finalize()))),
            read => {
                hash.update(&piece[..read]);
                bytes += read as u64;
            }
        }
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `path`, or the first of `path-2`, `path-3`, … that does not exist.
pub(crate) fn unused(path: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    let mut names = std::iter::once(path.to_owned()).chain((2..).map(numbered));
    let unused = names.find(|name| name.symlink_metadata().is_err());
    unused.unwrap_or_else(|| path.to_owned())
}

/// Adds the path to an error of the file system.
pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> TrainError {
    let path = path.into();
    move |source| TrainError::Io { path, source }
}
