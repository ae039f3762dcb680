//! Unused names of files, and their errors.

use crate::TrainError;
use std::{
    io,
    path::{Path, PathBuf},
};

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
