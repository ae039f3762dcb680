//! Files and folders that appear whole or not at all, and leave nothing behind if they do not
//! appear.

use super::{files_below, folder_of, sync_folder};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, ErrorKind},
    mem,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Prefix of temporary names. No other program's file begins with it.
const PREFIX: &str = ".tightrope-tmp-";

/// Every temporary name in use, for [`remove_temporaries`].
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file or folder under a temporary name, beside the place that it is for. Only
/// [`Temporary::finish`] gives it its final name. If it is dropped before (after an error or on a
/// full disk), it is removed, and a signal that ends the process removes it through
/// [`remove_temporaries`].
///
/// The umask applies to it as to every other file.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    target: PathBuf,
}

impl Temporary {
    /// An empty folder that will become `target`. Leftovers of a killed process under the temporary
    /// name are removed.
    pub fn folder(target: &Path) -> io::Result<Self> {
        let temporary = Self::named(target)?;
        fs::create_dir(&temporary.path)?;
        Ok(temporary)
    }

    /// An empty file that will become `target`, open for writing and reading.
    pub fn file(target: &Path) -> io::Result<(Self, File)> {
        let temporary = Self::named(target)?;
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true);
        let file = file.open(&temporary.path)?;
        Ok((temporary, file))
    }

    fn named(target: &Path) -> io::Result<Self> {
        let mut name = std::ffi::OsString::from(PREFIX);
        let own = target.file_name();
        name.push(own.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "has no name"))?);
        let path = folder_of(target).join(name);
        remove(&path)?;
        unfinished().insert(path.clone());
        let target = target.to_owned();
        Ok(Self { path, target })
    }

    /// Path until the file or folder is finished.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the contents durable and gives them their final name. A file replaces a file of that
    /// name; a folder replaces only an empty folder.
    pub fn finish(self) -> io::Result<()> {
        self.sync()?;
        {
            // The lock is held so that nothing is removed under the final name.
            let mut unfinished = unfinished();
            fs::rename(&self.path, &self.target)?;
            unfinished.remove(&self.path);
        }
        sync_folder(folder_of(&self.target))
    }

    /// Makes all contents durable.
    pub fn sync(&self) -> io::Result<()> {
        if self.path.is_file() {
            return File::open(&self.path)?.sync_all();
        }
        let mut folders = BTreeSet::from([self.path.clone()]);
        for name in files_below(&self.path)? {
            let path = self.path.join(name);
            File::open(&path)?.sync_all()?;
            folders.insert(folder_of(&path).to_owned());
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if unfinished().remove(&self.path) {
            // The reason why it was not finished is known; a failed removal adds nothing to that.
            let _ = remove(&self.path);
        }
    }
}

/// Removes every temporary file and folder of this process, which must then end: no temporary file
/// or folder gets its final name from here on.
pub fn remove_temporaries() {
    let unfinished = unfinished();
    for path in unfinished.iter() {
        // Another thread may add files to a folder while it is being removed.
        let _ = (0..9).find(|_| remove(path).is_ok());
    }
    mem::forget(unfinished);
}

/// Whether a file of this name is one of our unfinished temporary files.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Removes leftovers of killed processes in `folder`, which no other process may be using.
pub fn remove_stale(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_temporary(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes `doomed` so that nobody ever finds a part of it under its name.
pub fn remove_at_once(doomed: &Path) -> io::Result<()> {
    let temporary = Temporary::named(doomed)?;
    fs::rename(doomed, &temporary.path)?;
    remove(&temporary.path)
}

fn remove(path: &Path) -> io::Result<()> {
    let is_folder = path.symlink_metadata().map(|data| data.is_dir());
    let removed = match is_folder {
        Ok(true) => fs::remove_dir_all(path),
        Ok(false) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_not_finished_is_gone_and_what_is_has_its_name() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("model");
        let temporary = Temporary::folder(&target).unwrap();
        fs::create_dir(temporary.path().join("inner")).unwrap();
        fs::write(temporary.path().join("inner/file"), "half").unwrap();
        drop(temporary);
        assert!(names(parent.path()).is_empty());

        let temporary = Temporary::folder(&target).unwrap();
        fs::write(temporary.path().join("file"), "whole").unwrap();
        temporary.finish().unwrap();
        assert_eq!(names(parent.path()), ["model"]);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "whole");
        // A folder that is not empty is never replaced, and the new folder is removed.
        let temporary = Temporary::folder(&target).unwrap();
        assert!(temporary.finish().is_err());
        assert_eq!(names(parent.path()), ["model"]);
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_or_removed() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join(".tightrope-tmp-a")).unwrap();
        fs::write(parent.path().join(".tightrope-tmp-a/half"), "").unwrap();
        fs::write(parent.path().join(".tightrope-tmp-b"), "").unwrap();
        fs::write(parent.path().join(".tmp-of-somebody"), "").unwrap();
        write(&parent.path().join("a"), b"new").unwrap();
        assert_eq!(
            names(parent.path()),
            [".tightrope-tmp-b", ".tmp-of-somebody", "a"]
        );
        remove_stale(parent.path()).unwrap();
        assert_eq!(names(parent.path()), [".tmp-of-somebody", "a"]);
    }
}
