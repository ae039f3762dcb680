//! The cache on disk, in the layout of the Python client, so that both share downloads: `blobs/` by
//! entity tag, `snapshots/COMMIT/` with links to blobs, and `refs/` from names to commits.

use super::{Kind, names::is_file_name};
#[cfg(feature = "hub")]
use std::io;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
#[cfg(feature = "hub")]
use tightrope_formats::files;
use tightrope_formats::{FormatError, safetensors};

/// One repository in the cache.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    folder: PathBuf,
    #[cfg_attr(
        not(feature = "hub"),
        allow(dead_code, reason = "read by the hub alone")
    )]
    locks: PathBuf,
}

impl Repository {
    /// Repository whose id has been checked.
    pub(super) fn new(cache: &Path, kind: Kind, id: &str) -> Self {
        let name = format!("{}--{}", kind.plural(), id.replace('/', "--"));
        Self {
            locks: cache.join(".locks").join(&name),
            folder: cache.join(name),
        }
    }

    /// Folder of the repository.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder of a revision, if a part of it exists.
    pub(super) fn cached(&self, revision: &str) -> Option<PathBuf> {
        let commit = fs::read_to_string(self.reference(revision));
        let commit = commit.unwrap_or_else(|_| revision.to_owned());
        let commit = commit.trim();
        let folder = self.snapshot(commit);
        (is_file_name(commit) && folder.is_dir()).then_some(folder)
    }

    /// Folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

#[cfg(feature = "hub")]
impl Repository {
    /// Path of the contents of a file.
    pub(super) fn blob(&self, name: &str) -> PathBuf {
        self.folder.join("blobs").join(name)
    }

    /// File whose lock is held while a blob is downloaded.
    pub(super) fn lock(&self, blob: &str) -> PathBuf {
        self.locks.join(format!("{blob}.lock"))
    }

    /// Gives a blob its name in the folder of a commit.
    pub(super) fn link(&self, blob: &str, commit: &str, name: &str) -> io::Result<()> {
        let path = self.snapshot(commit).join(name);
        let folder = files::folder_of(&path);
        fs::create_dir_all(folder)?;
        if path.symlink_metadata().is_ok() {
            // The link is dangling, because whole files are not requested again.
            fs::remove_file(&path)?;
        }
        let up = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{blob}"));
        #[cfg(unix)]
        std::os::unix::fs::symlink(target, &path)?;
        // Links need a privilege there, so the Python client moves the file as well.
        #[cfg(not(unix))]
        fs::rename(folder.join(target), &path)?;
        files::sync_folder(folder)
    }

    /// Records the commit of a revision.
    pub(super) fn refer(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.reference(revision);
        fs::create_dir_all(files::folder_of(&path))?;
        files::write(&path, commit.as_bytes())
    }
}

/// Shards that an index names; an error describes what is wrong with the index.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    let files = safetensors::read_index(index).map_err(|error| match error {
        FormatError::Json { source, .. } => source.to_string(),
        FormatError::Io { source, .. } => source.to_string(),
        FormatError::Damaged { reason, .. } => reason,
        error => error.to_string(),
    })?;
    match files.keys().all(|name| is_file_name(name)) {
        true => Ok(files.into_keys().collect()),
        false => Err("it names a shard that is not the name of a file".to_owned()),
    }
}

/// Whether every weight file exists: one file, all shards of the index, or a `.gguf` file.
pub(super) fn has_weights(folder: &Path) -> bool {
    if !folder.join("config.json").exists() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.path());
        return names.any(|path| path.extension().is_some_and(|e| e == "gguf") && path.exists());
    }
    let index = folder.join(safetensors::INDEX);
    folder.join(safetensors::WHOLE).exists()
        || shards(&index).is_ok_and(|shards| shards.iter().all(|name| folder.join(name).exists()))
}
