//! Decompresses gzip, member after member, and tells bytes behind the last member from a cut.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// Message of the error for bytes behind the compressed data.
pub(super) const BEHIND: &str = "bytes follow the end of the gzip data";

/// Size of the buffer for compressed bytes.
const BUFFER: usize = 1 << 15;

pub(super) struct Gzip<R> {
    /// The member being read; `None` at the end.
    member: Option<GzDecoder<BufReader<R>>>,
}

impl<R: Read> Gzip<R> {
    pub(super) fn new(inner: R) -> Self {
        let inner = BufReader::with_capacity(BUFFER, inner);
        Self {
            member: Some(GzDecoder::new(inner)),
        }
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            // Tapes and disks pad files with zeros, which gunzip ignores too.
            let inner = member.get_mut();
            let mut padded = false;
            while inner.fill_buf()?.first() == Some(&0) {
                inner.consume(1);
                padded = true;
            }
            match inner.fill_buf()?.first() {
                None => self.member = None,
                Some(0x1f) if !padded => {
                    let inner = self.member.take().map(GzDecoder::into_inner);
                    self.member = inner.map(GzDecoder::new);
                }
                Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, BEHIND)),
            }
        }
        Ok(0)
    }
}
