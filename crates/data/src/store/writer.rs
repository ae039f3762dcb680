//! Collects sequences, in memory or in a file.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tightrope_packing::Sequence;

use super::entry::{self, Entry, SIZE};
use super::{Backing, Sequences, Store, Stored, file};
use crate::dataset::Origin;
use crate::error::DataError;

/// Collects sequences one by one. Those that go to a file take 48 bytes of memory each until they
/// are all there.
#[derive(Debug, Default)]
pub struct SequenceWriter {
    to: To,
    index: Vec<u8>,
    /// Bytes of the sequence that is written.
    bytes: Vec<u8>,
    tokens: u64,
}

#[derive(Debug)]
enum To {
    Memory(Vec<u8>),
    File(BufWriter<File>, PathBuf),
}

impl Default for To {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl SequenceWriter {
    /// Writes to an empty file that is open for writing and reading; errors name it `path`.
    /// [`Sequences::seal`] makes it a file that [`Sequences::open`] reads.
    pub fn to_file(file: File, path: &Path) -> Result<Self, DataError> {
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let space = writer.write_all(&[0; file::PREAMBLE as usize]);
        let to = To::File(writer, path.to_owned());
        let writer = Self {
            to,
            ..Self::default()
        };
        match space {
            Ok(()) => Ok(writer),
            Err(error) => Err(writer.error(error)),
        }
    }

    /// Number of sequences so far.
    pub fn len(&self) -> usize {
        self.index.len() / SIZE
    }

    /// Whether there are no sequences yet.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Adds a sequence; `good` is the verdict on a labelled answer.
    pub fn push(
        &mut self,
        sequence: &Sequence,
        origin: Origin,
        good: bool,
    ) -> Result<(), DataError> {
        if self.len() >= u32::MAX as usize || u32::try_from(sequence.len()).is_err() {
            let error = io::Error::other("more sequences, or longer ones, than 32 bits can count");
            return Err(self.error(error));
        }
        self.bytes.clear();
        entry::write(sequence, &mut self.bytes);
        let entry = Entry::new(sequence, &self.bytes, origin, good);
        self.index.extend(entry.bytes());
        self.tokens += sequence.len() as u64;
        let written = match &mut self.to {
            To::Memory(tokens) => {
                tokens.extend(&self.bytes);
                Ok(())
            }
            To::File(writer, _) => writer.write_all(&self.bytes),
        };
        written.map_err(|error| self.error(error))
    }

    /// The sequences.
    pub fn finish(self) -> Result<Sequences, DataError> {
        let count = self.len();
        let path = self.path();
        let store = match self.to {
            To::Memory(tokens) => {
                let index = self.index;
                Store::new(Backing::Memory { tokens, index }, count)
            }
            To::File(mut writer, path) => {
                let written = writer.write_all(&self.index);
                // The entries are read again as they are needed.
                drop(self.index);
                let file = written.and_then(|()| Ok(writer.into_inner()?));
                file.and_then(|file| {
                    let index = file::PREAMBLE + 8 * self.tokens;
                    let stored = Stored { file, path, index };
                    Store::new(Backing::File(stored), count)
                })
            }
        };
        let store = store.map_err(|source| DataError::Io { path, source })?;
        Ok(Sequences {
            store: Arc::new(store),
            chosen: None,
        })
    }

    fn path(&self) -> PathBuf {
        match &self.to {
            To::Memory(_) => PathBuf::from("memory"),
            To::File(_, path) => path.clone(),
        }
    }

    fn error(&self, source: io::Error) -> DataError {
        let path = self.path();
        DataError::Io { path, source }
    }
}

impl Sequences {
    /// Ends the file that a [`SequenceWriter`] wrote these sequences to with a text, and returns its
    /// size.
    pub fn seal(&self, text: &[u8]) -> io::Result<u64> {
        let Backing::File(stored) = &self.store.backing else {
            return Err(io::Error::other("sequences in memory have no file"));
        };
        let preamble = file::Preamble::of(&self.store, text);
        let mut file = &stored.file;
        let size = file.seek(io::SeekFrom::End(0))? + text.len() as u64;
        file.write_all(text)?;
        file.rewind()?;
        file.write_all(&preamble.bytes())?;
        Ok(size)
    }
}
