//! Watches the bytes of a CSV file on their way to its reader: how long a record is, and whether a
//! quote is open, which the reader does not say.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What has been seen so far.
#[derive(Default)]
pub(super) struct Seen {
    /// Number of bytes read since the last record ended.
    bytes: AtomicUsize,
    /// Line of the open quote, from 1; 0 if none is open.
    open_quote: AtomicU64,
    ended: AtomicBool,
}

impl Seen {
    pub(super) fn begin_record(&self) {
        self.bytes.store(0, Relaxed);
    }

    /// Number of bytes read for the record.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Line of the stream, from 1, on which a quote has been opened and not closed.
    pub(super) fn open_quote(&self) -> Option<u64> {
        Some(self.open_quote.load(Relaxed)).filter(|line| *line > 0)
    }

    /// Whether the end of the stream was reached; only a record that it ends reaches it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }
}

/// A stream that is watched. It ends with an error if a record does not end: an open quote would
/// take in everything that follows.
pub(super) struct Watched<R> {
    inner: R,
    seen: Arc<Seen>,
    between: u8,
    limit: usize,
    place: Place,
    /// Line of the next byte, from 1.
    line: u64,
    /// Line of the last quote that opened a field.
    opened: u64,
}

/// Place of a byte in a record, in the rules of the crate `csv`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first byte of a field.
    Before,
    /// In a field without quotes, or behind its closing quote.
    Bare,
    Quoted,
    /// Behind a quote in quotes, which closes them unless another one follows.
    Quote,
}

impl<R: Read> Watched<R> {
    pub(super) fn new(inner: R, seen: Arc<Seen>, between: u8, limit: usize) -> Self {
        Self {
            inner,
            seen,
            between,
            limit,
            place: Place::Before,
            line: 1,
            opened: 0,
        }
    }

    fn see(&mut self, byte: u8) {
        let ends_field = byte == self.between || matches!(byte, b'\n' | b'\r');
        self.place = match (self.place, byte) {
            (Place::Before, b'"') => {
                self.opened = self.line;
                Place::Quoted
            }
            (Place::Quoted, b'"') => Place::Quote,
            (Place::Quote, b'"') | (Place::Quoted, _) => Place::Quoted,
            _ if ends_field => Place::Before,
            _ => Place::Bare,
        };
        self.line += u64::from(byte == b'\n');
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        for &byte in &buffer[..n] {
            self.see(byte);
        }
        let open = match self.place {
            Place::Quoted => self.opened,
            _ => 0,
        };
        self.seen.open_quote.store(open, Relaxed);
        if n == 0 && !buffer.is_empty() {
            self.seen.ended.store(true, Relaxed);
        }
        let bytes = self.seen.bytes.fetch_add(n, Relaxed) + n;
        if bytes > self.limit.saturating_add(buffer.len()) {
            return Err(io::Error::other("a row that is too large"));
        }
        Ok(n)
    }
}
