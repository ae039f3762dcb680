//! The downloaded part of a file, under the name that the Python client gives it.

use super::{
    client::Fault,
    download::{Problem, at},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};
use tightrope_formats::files::{folder_of, hexadecimal, sync_folder};

/// An open file that grows at its end, and the hash of its contents.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    /// Number of hashed bytes.
    pub len: u64,
}

impl Partial {
    /// Opens the file beside the blob that it will become.
    pub(super) fn open(blob: &Path) -> Result<Self, Problem> {
        let mut path = blob.to_owned().into_os_string();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let mut options = File::options();
        let file = options.create(true).read(true).append(true).open(&path);
        Ok(Self {
            file: file.map_err(at(&path))?,
            hash: Sha256::new(),
            len: 0,
            path,
        })
    }

    /// Size on disk in bytes.
    pub(super) fn bytes(&self) -> Result<u64, Problem> {
        Ok(self.file.metadata().map_err(at(&self.path))?.len())
    }

    /// Hashes the contents of an earlier download.
    pub(super) fn read_again(
        &mut self,
        go_on: impl Fn() -> Result<(), Fault>,
    ) -> Result<(), Problem> {
        self.file.rewind().map_err(at(&self.path))?;
        let mut piece = vec![0; 1 << 20];
        loop {
            go_on()?;
            match self.file.read(&mut piece).map_err(at(&self.path))? {
                0 => return Ok(()),
                read => {
                    self.hash.update(&piece[..read]);
                    self.len += read as u64;
                }
            }
        }
    }

    /// Empties the file.
    pub(super) fn restart(&mut self) -> Result<(), Problem> {
        self.file.set_len(0).map_err(at(&self.path))?;
        (self.hash, self.len) = (Sha256::new(), 0);
        Ok(())
    }

    pub(super) fn append(&mut self, piece: &[u8]) -> Result<(), Problem> {
        self.file.write_all(piece).map_err(at(&self.path))?;
        self.hash.update(piece);
        self.len += piece.len() as u64;
        Ok(())
    }

    /// Hash of all contents.
    pub(super) fn sha256(&self) -> String {
        hexadecimal(&self.hash.clone().finalize())
    }

    /// Turns the file into the blob.
    pub(super) fn finish(self, blob: &Path) -> Result<(), Problem> {
        self.file.sync_all().map_err(at(&self.path))?;
        fs::rename(&self.path, blob).map_err(at(blob))?;
        sync_folder(folder_of(blob)).map_err(at(blob))
    }
}
