//! Sequences with their origins: tokens side by side, in memory or in a file, and an index of
//! entries of one size that says where each sequence lies.
//!
//! What is always in memory is 24 bytes for each sequence. Tokens are read from the file when they
//! are asked for, by place and not through a map: a file that another process cuts is then an error
//! and not the end of this process, and no page of it counts as memory of this process.

mod entry;
mod file;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tightrope_formats::files::read_at;
use tightrope_packing::{Part, SegmentError, Sequence, Units};

use crate::dataset::Origin;
use crate::error::DataError;
use entry::{Entry, SIZE, sequence};
#[doc(hidden)]
pub use file::with_digest;
pub use writer::SequenceWriter;

/// Number of entries that are read together.
const BLOCK: usize = 4096;

/// Sequences with their origins, in memory or in a file. Copies and selections share the tokens.
///
/// ```
/// use tightrope_data::{Sequences, packing::Sequence};
/// let sequence = |id| Sequence::from_labels(vec![id, id + 1], &[-100, i64::from(id) + 1]);
/// let all: Sequences = [sequence(3)?, sequence(8)?].into_iter().collect();
/// assert_eq!((all.len(), all.length(1), all.trained_tokens(1)), (2, 2, 1));
/// let swapped = all.select(vec![1, 0]);
/// assert_eq!(swapped.get(0)?.tokens(), [8, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Sequences {
    store: Arc<Store>,
    /// Numbers of the sequences in the store; all of them, in order, if absent.
    chosen: Option<Vec<u32>>,
}

/// Stored sequences.
#[derive(Default)]
struct Store {
    backing: Backing,
    items: Vec<Item>,
    /// The file that sequences come from, from this sequence on.
    files: Vec<(u32, u32)>,
    /// Digest of the digests of all sequences.
    identity: [u8; 32],
    /// Digest of the index, to be continued.
    index: Sha256,
}

/// What is known of a sequence without reading it.
#[derive(Clone, Copy)]
struct Item {
    /// Number of tokens of the sequences before it.
    start: u64,
    length: u32,
    trained: u32,
    beginning: u32,
    /// Number of its record.
    record: u32,
}

enum Backing {
    Memory { tokens: Vec<u8>, index: Vec<u8> },
    File(Stored),
}

struct Stored {
    file: File,
    /// Path for errors.
    path: PathBuf,
    /// Place of the index, which ends the tokens.
    index: u64,
}

impl Default for Backing {
    fn default() -> Self {
        Self::Memory {
            tokens: Vec::new(),
            index: Vec::new(),
        }
    }
}

impl Backing {
    /// Bytes of the tokens, or of the index.
    fn bytes(&self, index: bool, place: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Memory { tokens, index: own } => {
                let all = if index { own } else { tokens };
                let bytes = all.get(place as usize..place as usize + length);
                Ok(Cow::Borrowed(bytes.ok_or_else(cut)?))
            }
            Self::File(stored) => {
                let start = if index { stored.index } else { file::PREAMBLE };
                let mut bytes = vec![0; length];
                read_at(&stored.file, &mut bytes, start + place).map_err(named)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    fn entries(&self, range: Range<usize>) -> io::Result<Cow<'_, [u8]>> {
        self.bytes(true, (range.start * SIZE) as u64, range.len() * SIZE)
    }

    fn error(&self, source: io::Error) -> DataError {
        let path = match self {
            Self::Memory { .. } => PathBuf::from("memory"),
            Self::File(stored) => stored.path.clone(),
        };
        DataError::Io { path, source }
    }
}

fn cut() -> io::Error {
    let text = "it is cut off or damaged; without it, the data is read anew";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => cut(),
        _ => error,
    }
}

impl Store {
    /// Reads the index of `count` sequences.
    fn new(backing: Backing, count: usize) -> io::Result<Self> {
        let mut store = Self {
            items: Vec::with_capacity(count),
            ..Self::default()
        };
        let (mut identity, mut start) = (Sha256::new(), 0u64);
        let mut before = None;
        let mut record = 0u32;
        for first in (0..count).step_by(BLOCK) {
            let block = backing.entries(first..(first + BLOCK).min(count))?;
            store.index.update(&block);
            for entry in block.as_chunks::<SIZE>().0 {
                let entry = Entry::read(entry);
                let number = store.items.len() as u32;
                if !entry.is_possible() {
                    return Err(cut());
                }
                let place = (entry.file, entry.row);
                record += u32::from(before.is_some_and(|before| before != place));
                before = Some(place);
                if store.files.last().map(|file| file.1) != Some(entry.file) {
                    store.files.push((number, entry.file));
                }
                identity.update(entry.digest);
                store.items.push(Item {
                    start,
                    length: entry.length,
                    trained: entry.trained,
                    beginning: entry.beginning,
                    record,
                });
                start += u64::from(entry.length);
            }
        }
        store.identity = identity.finalize().into();
        store.backing = backing;
        Ok(store)
    }

    fn tokens(&self) -> u64 {
        let last = self.items.last();
        last.map_or(0, |item| item.start + u64::from(item.length))
    }

    fn entry(&self, number: usize) -> io::Result<Entry> {
        let bytes = self.backing.entries(number..number + 1)?;
        let entry = bytes.first_chunk().map(Entry::read);
        entry.ok_or_else(cut)
    }

    /// A sequence; one that lies in a file is compared with its digest.
    fn get(&self, number: usize) -> io::Result<Sequence> {
        let item = self.items[number];
        let bytes = self
            .backing
            .bytes(false, 8 * item.start, 8 * item.length as usize)?;
        let damaged = || {
            let text = format!(
                "sequence {} is damaged; delete the file, and the data is read anew",
                number + 1
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        if matches!(self.backing, Backing::File(_))
            && self.entry(number)?.digest != entry::digest(&bytes)
        {
            return Err(damaged());
        }
        sequence(&bytes).ok_or_else(damaged)
    }
}

impl Sequences {
    /// Number of sequences.
    pub fn len(&self) -> usize {
        match &self.chosen {
            Some(chosen) => chosen.len(),
            None => self.store.items.len(),
        }
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn number(&self, index: usize) -> usize {
        match &self.chosen {
            Some(chosen) => chosen[index] as usize,
            None => index,
        }
    }

    fn item(&self, index: usize) -> &Item {
        &self.store.items[self.number(index)]
    }

    /// Number of tokens of a sequence.
    pub fn length(&self, index: usize) -> usize {
        self.item(index).length as usize
    }

    /// Number of positions of a sequence with a target.
    pub fn trained_tokens(&self, index: usize) -> usize {
        self.item(index).trained as usize
    }

    /// Number of tokens of a sequence before the first one with a target; all of them if there is
    /// none.
    pub fn untrained_beginning(&self, index: usize) -> usize {
        self.item(index).beginning as usize
    }

    /// Number of tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        (0..self.len()).map(|index| self.length(index) as u64).sum()
    }

    /// Whether two sequences come from the same record.
    pub(crate) fn same_record(&self, a: usize, b: usize) -> bool {
        self.item(a).record == self.item(b).record
    }

    /// Index of the file that a sequence comes from.
    pub fn file(&self, index: usize) -> usize {
        let number = self.number(index) as u32;
        let files = &self.store.files;
        let after = files.partition_point(|&(first, _)| first <= number);
        files[after - 1].1 as usize
    }

    /// Origin of a sequence.
    pub fn origin(&self, index: usize) -> Result<Origin, DataError> {
        let entry = self.store.entry(self.number(index));
        Ok(entry.map_err(|error| self.error(error))?.origin())
    }

    /// A sequence.
    ///
    /// # Errors
    /// If its file cannot be read, or was damaged.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn get(&self, index: usize) -> Result<Sequence, DataError> {
        let sequence = self.store.get(self.number(index));
        sequence.map_err(|error| self.error(error))
    }

    /// The first tokens of a sequence, which are not compared with its digest.
    pub(crate) fn first_tokens(
        &self,
        index: usize,
        range: Range<usize>,
    ) -> Result<Vec<u32>, DataError> {
        let start = self.item(index).start * 8 + 4 * range.start as u64;
        let bytes = self.store.backing.bytes(false, start, 4 * range.len());
        let bytes = bytes.map_err(|error| self.error(error))?;
        let words = bytes.as_chunks().0.iter();
        Ok(words.map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// All sequences, read one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Result<Sequence, DataError>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Some of these sequences, which may repeat, in this order.
    ///
    /// # Panics
    /// If there is no such sequence.
    #[must_use]
    pub fn select(&self, mut indices: Vec<u32>) -> Self {
        for index in &mut indices {
            *index = self.number(*index as usize) as u32;
        }
        let all = self.store.items.len();
        assert!(indices.iter().all(|&number| (number as usize) < all));
        Self {
            store: Arc::clone(&self.store),
            chosen: Some(indices),
        }
    }

    /// Digest of all tokens and targets, in order.
    pub fn identity(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.store.identity);
        let chosen = self.chosen.as_deref().unwrap_or_default();
        chosen
            .iter()
            .for_each(|number| hash.update(number.to_le_bytes()));
        hash.finalize().into()
    }

    fn error(&self, source: io::Error) -> DataError {
        self.store.backing.error(source)
    }
}

/// Sequences in memory, each a record of its own.
impl FromIterator<Sequence> for Sequences {
    fn from_iter<T: IntoIterator<Item = Sequence>>(sequences: T) -> Self {
        let origins = (1..).map(|row| Origin {
            file: 0,
            row,
            line: None,
        });
        sequences.into_iter().zip(origins).collect()
    }
}

/// Sequences in memory.
impl FromIterator<(Sequence, Origin)> for Sequences {
    fn from_iter<T: IntoIterator<Item = (Sequence, Origin)>>(sequences: T) -> Self {
        let mut writer = SequenceWriter::default();
        let written = sequences
            .into_iter()
            .try_for_each(|(sequence, origin)| writer.push(&sequence, origin, false));
        let written = written.and_then(|()| writer.finish());
        written.expect("memory is written and read without errors")
    }
}

impl fmt::Debug for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Sequences");
        text.field("count", &self.len()).finish_non_exhaustive()
    }
}

impl Units for Sequences {
    fn count(&self) -> usize {
        self.len()
    }

    fn lengths(&self) -> Vec<u32> {
        (0..self.len())
            .map(|index| self.item(index).length)
            .collect()
    }

    fn parts(&self, unit: usize) -> Result<Vec<Part<'_>>, SegmentError> {
        if unit >= self.len() {
            return Ok(Vec::new());
        }
        let sequence = self.get(unit).map_err(|error| unreadable(unit, &error))?;
        Ok(vec![Part {
            sequence: Cow::Owned(sequence),
            prefix: None,
        }])
    }
}

/// A unit that cannot be read, with all reasons.
pub(crate) fn unreadable(unit: usize, error: &DataError) -> SegmentError {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        why += &format!(": {error}");
        source = error.source();
    }
    SegmentError::Unreadable { unit, why }
}

#[cfg(test)]
mod tests;
