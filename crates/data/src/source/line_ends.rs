//! Converts lines that end in carriage returns alone, as written by old Macs and some spreadsheets.

use std::io::{Read, Result};

/// Text whose lines end in line feeds: if its first line ends in a carriage return alone, all of
/// them do, and each becomes a line feed.
pub(super) struct LineEnds<R> {
    inner: R,
    ends: Ends,
    /// A byte that was read to classify the one before it.
    next: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Unknown,
    Feeds,
    Returns,
}

impl<R: Read> LineEnds<R> {
    pub(super) fn of(inner: R) -> Self {
        Self {
            inner,
            ends: Ends::Unknown,
            next: None,
        }
    }

    /// Learns the kind of all line ends from the first one in `text`.
    fn learn(&mut self, text: &[u8]) -> Result<()> {
        let Some(at) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            return Ok(());
        };
        let mut following = text.get(at + 1).copied();
        if text[at] == b'\r' && following.is_none() {
            let mut byte = [0];
            following = (self.inner.read(&mut byte)? == 1).then_some(byte[0]);
            self.next = following;
        }
        self.ends = match (text[at], following) {
            (b'\n', _) | (_, Some(b'\n')) => Ends::Feeds,
            _ => Ends::Returns,
        };
        Ok(())
    }
}

impl<R: Read> Read for LineEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let (Some(first), Some(next)) = (buffer.first_mut(), self.next) else {
            let length = self.inner.read(buffer)?;
            return self.translated(&mut buffer[..length]);
        };
        *first = next;
        self.next = None;
        self.translated(&mut buffer[..1])
    }
}

impl<R: Read> LineEnds<R> {
    fn translated(&mut self, text: &mut [u8]) -> Result<usize> {
        if self.ends == Ends::Unknown {
            self.learn(text)?;
        }
        if self.ends == Ends::Returns {
            let returns = text.iter_mut().filter(|byte| **byte == b'\r');
            returns.for_each(|byte| *byte = b'\n');
        }
        Ok(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text, read in pieces of so many bytes.
    fn read(text: &str, bytes: usize) -> String {
        let mut reader = LineEnds::of(text.as_bytes());
        let (mut all, mut buffer) = (Vec::new(), vec![0; bytes]);
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => return String::from_utf8(all).unwrap(),
                length => all.extend(&buffer[..length]),
            }
        }
    }

    #[test]
    fn returns_alone_end_lines_and_others_stay() {
        for (text, expected) in [
            ("", ""),
            ("a", "a"),
            ("a\rb\r", "a\nb\n"),
            ("\r\ra\r\nb", "\n\na\n\nb"),
            ("a\r\nb\rc\n", "a\r\nb\rc\n"),
            ("a\nb\rc", "a\nb\rc"),
            ("a\r", "a\n"),
        ] {
            for bytes in 1..8 {
                assert_eq!(read(text, bytes), expected, "{text:?} in pieces of {bytes}");
            }
        }
    }
}
