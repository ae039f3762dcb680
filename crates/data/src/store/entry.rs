//! An entry of the index, and the bytes of a sequence.

use sha2::{Digest, Sha256};
use tightrope_packing::{IGNORED, Sequence};

use crate::dataset::Origin;

/// Size of an entry.
pub(super) const SIZE: usize = 48;

/// What the index has for a sequence, in little-endian numbers in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) length: u32,
    pub(super) trained: u32,
    /// Number of tokens before the first target.
    pub(super) beginning: u32,
    pub(super) file: u32,
    pub(super) row: u64,
    /// 0: none.
    pub(super) line: u64,
    /// 1 for a good answer.
    pub(super) good: u32,
    /// Beginning of the SHA-256 of tokens and targets.
    pub(super) digest: [u8; 12],
}

impl Entry {
    /// The entry of a sequence with these bytes.
    pub(super) fn new(sequence: &Sequence, bytes: &[u8], origin: Origin, good: bool) -> Self {
        Self {
            length: sequence.len() as u32,
            trained: sequence.trained_tokens() as u32,
            beginning: sequence.untrained_beginning() as u32,
            file: origin.file,
            row: origin.row,
            line: origin.line.unwrap_or(0),
            good: good.into(),
            digest: digest(bytes),
        }
    }

    pub(super) fn read(bytes: &[u8; SIZE]) -> Self {
        let short = |place: usize| {
            let word = bytes[place..].first_chunk();
            u32::from_le_bytes(*word.unwrap_or(&[0; 4]))
        };
        let long = |place| u64::from(short(place)) | u64::from(short(place + 4)) << 32;
        Self {
            length: short(0),
            trained: short(4),
            beginning: short(8),
            file: short(12),
            row: long(16),
            line: long(24),
            good: short(32),
            digest: *bytes[36..].first_chunk().unwrap_or(&[0; 12]),
        }
    }

    pub(super) fn bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let mut rest = &mut bytes[..];
        let mut put = |part: &[u8]| {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(part.len());
            own.copy_from_slice(part);
            rest = after;
        };
        [self.length, self.trained, self.beginning, self.file]
            .iter()
            .for_each(|number| put(&number.to_le_bytes()));
        put(&self.row.to_le_bytes());
        put(&self.line.to_le_bytes());
        put(&self.good.to_le_bytes());
        put(&self.digest);
        bytes
    }

    /// Whether a sequence can have these numbers.
    pub(super) fn is_possible(&self) -> bool {
        let all = u64::from(self.length);
        u64::from(self.beginning) + u64::from(self.trained) <= all && self.good <= 1
    }

    pub(super) fn origin(&self) -> Origin {
        Origin {
            file: self.file,
            row: self.row,
            line: (self.line > 0).then_some(self.line),
        }
    }
}

/// Appends tokens and targets.
pub(super) fn write(sequence: &Sequence, bytes: &mut Vec<u8>) {
    let tokens = sequence.tokens().iter().map(|token| token.to_le_bytes());
    bytes.extend(tokens.flatten());
    let targets = sequence.targets().iter().map(|target| target.to_le_bytes());
    bytes.extend(targets.flatten());
}

/// The sequence with these bytes, if there is one.
pub(super) fn sequence(bytes: &[u8]) -> Option<Sequence> {
    let words = bytes.as_chunks::<4>().0;
    let (tokens, targets) = words.split_at(words.len() / 2);
    let tokens: Vec<u32> = tokens
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect();
    // Labels are the targets before they were shifted.
    let targets = targets.iter().map(|word| i32::from_le_bytes(*word));
    let labels = [IGNORED].into_iter().chain(targets).map(i64::from);
    let labels: Vec<i64> = labels.take(tokens.len()).collect();
    Sequence::from_labels(tokens, &labels).ok()
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 12] {
    let digest = Sha256::digest(bytes);
    *digest.first_chunk().unwrap_or(&[0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_sequences_are_read_as_they_were_written() {
        let all = Sequence::from_labels(
            vec![1, u32::MAX, 3, 4],
            &[-100, -100, 9, i64::from(i32::MAX)],
        );
        let all = all.unwrap();
        let mut bytes = vec![];
        write(&all, &mut bytes);
        assert_eq!((bytes.len(), sequence(&bytes)), (32, Some(all.clone())));
        let origin = Origin {
            file: 7,
            row: 1 << 40,
            line: Some(u64::MAX),
        };
        let entry = Entry::new(&all, &bytes, origin, true);
        assert_eq!((entry.length, entry.trained, entry.beginning), (4, 2, 1));
        assert_eq!(Entry::read(&entry.bytes()), entry);
        assert_eq!(entry.origin(), origin);
        assert!(entry.is_possible());
        for entry in [
            Entry {
                trained: 4,
                ..entry
            },
            Entry {
                beginning: 3,
                ..entry
            },
            Entry { good: 2, ..entry },
        ] {
            assert!(!entry.is_possible());
        }
    }
}
