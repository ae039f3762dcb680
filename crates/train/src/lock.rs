//! Locks an output folder for one run.

use crate::{TrainError, files::at};
use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

/// Name of the locked file.
pub(crate) const LOCK: &str = ".lock";

/// A lock that is held while a run writes to its output folder; the system releases it however the
/// process ends.
#[derive(Debug)]
pub struct OutputLock {
    _file: File,
}

impl OutputLock {
    /// Creates the folder if needed and takes its lock, or returns an error if another run holds
    /// it.
    pub fn take(output: &Path) -> Result<Self, TrainError> {
        fs::create_dir_all(output).map_err(at(output))?;
        let path = output.join(LOCK);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(TrainError::OutputInUse {
                output: output.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(TrainError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a/b");
        let first = OutputLock::take(&output).unwrap();
        let second = OutputLock::take(&output).unwrap_err();
        assert!(second.to_string().contains("another run"), "{second}");
        drop(first);
        OutputLock::take(&output).unwrap();
    }
}
