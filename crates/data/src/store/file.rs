//! The file of stored sequences.
//!
//! A file has, in little-endian numbers: [`MAGIC`], the number of sequences, of tokens and of bytes
//! of the text (u64 each), and the SHA-256 of these numbers, the text and the index; then for one
//! sequence after the other the tokens (u32) and the targets (i32); then the index, an entry of 48
//! bytes for each sequence (see `entry`); then the text.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tightrope_formats::files::read_at;

use super::entry::{Entry, SIZE};
use super::{BLOCK, Backing, Sequences, Store, Stored, cut, named};

const MAGIC: &[u8; 24] = b"tightrope tokens 3\n\0\0\0\0\0";
/// Size of what is before the tokens.
pub(super) const PREAMBLE: u64 = 24 + 3 * 8 + 32;
/// Largest size of the text.
const TEXT: u64 = 64 << 20;

pub(super) struct Preamble {
    numbers: [u64; 3],
    digest: [u8; 32],
}

impl Preamble {
    pub(super) fn of(store: &Store, text: &[u8]) -> Self {
        let numbers = [store.items.len() as u64, store.tokens(), text.len() as u64];
        let mut hash = store.index.clone();
        numbers
            .iter()
            .for_each(|number| hash.update(number.to_le_bytes()));
        hash.update(text);
        Self {
            numbers,
            digest: hash.finalize().into(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(self.digest);
        bytes
    }

    fn read(bytes: &[u8; PREAMBLE as usize]) -> io::Result<Self> {
        let (magic, rest) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            let text = "it has another format";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let (numbers, digest) = rest.split_at(3 * 8);
        let number = |index: usize| {
            let number = numbers[8 * index..].first_chunk();
            u64::from_le_bytes(*number.unwrap_or(&[0; 8]))
        };
        Ok(Self {
            numbers: [number(0), number(1), number(2)],
            digest: *digest.first_chunk().unwrap_or(&[0; 32]),
        })
    }
}

impl Sequences {
    /// Opens a file of stored sequences, and returns its text. Index and text are read whole and
    /// compared with their digest; each sequence is compared with its own when it is read.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<u8>)> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut bytes = [0; PREAMBLE as usize];
        read_at(&file, &mut bytes, 0).map_err(named)?;
        let preamble = Preamble::read(&bytes)?;
        let [count, tokens, text] = preamble.numbers;
        let whole = u128::from(PREAMBLE)
            + u128::from(tokens) * 8
            + u128::from(count) * SIZE as u128
            + u128::from(text);
        if whole != u128::from(size) || text > TEXT || count > u64::from(u32::MAX) {
            return Err(cut());
        }
        let mut written = vec![0; text as usize];
        read_at(&file, &mut written, size - text).map_err(named)?;
        let stored = Stored {
            file,
            path: path.to_owned(),
            index: PREAMBLE + 8 * tokens,
        };
        let store = Store::new(Backing::File(stored), count as usize)?;
        let found = Preamble::of(&store, &written);
        if (found.numbers, found.digest) != (preamble.numbers, preamble.digest) {
            return Err(cut());
        }
        let store = Arc::new(store);
        let chosen = None;
        Ok((Self { store, chosen }, written))
    }

    /// The verdict on each labelled answer.
    pub fn verdicts(&self) -> io::Result<Vec<bool>> {
        let all = self.store.items.len();
        let mut verdicts = Vec::with_capacity(all);
        for first in (0..all).step_by(BLOCK) {
            let block = self
                .store
                .backing
                .entries(first..(first + BLOCK).min(all))?;
            let entries = block.as_chunks::<SIZE>().0.iter();
            verdicts.extend(entries.map(|entry| Entry::read(entry).good > 0));
        }
        match &self.chosen {
            Some(chosen) => Ok(chosen.iter().map(|&at| verdicts[at as usize]).collect()),
            None => Ok(verdicts),
        }
    }
}

/// Makes the digest of a file of stored sequences that of its contents, whatever they are: what was
/// changed on purpose then gets as far as it can.
#[doc(hidden)]
pub fn with_digest(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(head) = bytes.first_chunk() else {
        return bytes;
    };
    let Ok(preamble) = Preamble::read(head) else {
        return bytes;
    };
    let [_, tokens, text] = preamble.numbers.map(|number| usize::try_from(number).ok());
    let index = tokens.and_then(|tokens| tokens.checked_mul(8)?.checked_add(PREAMBLE as usize));
    let end = text.and_then(|text| bytes.len().checked_sub(text));
    let (Some(index), Some(end)) = (index, end) else {
        return bytes;
    };
    let Some(entries) = bytes.get(index..end) else {
        return bytes;
    };
    let mut hash = Sha256::new();
    hash.update(entries);
    hash.update(&bytes[MAGIC.len()..MAGIC.len() + 3 * 8]);
    hash.update(&bytes[end..]);
    let place = PREAMBLE as usize - 32;
    bytes[place..][..32].copy_from_slice(&hash.finalize());
    bytes
}
