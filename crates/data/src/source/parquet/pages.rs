//! Checks the sizes of Parquet pages before the reader trusts them: for some codecs the reader
//! allocates the size that a page claims, and for others the size that comes out of the page.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

/// Limit of the pages that are in memory together (a dictionary and one data page per column), as a
/// multiple of the limit of a row in bytes.
const PAGES: u64 = 64;
/// Largest number of levels of structs in a page's header; Parquet has three.
const DEPTH: u32 = 16;

/// Refuses a row group with pages that take too much memory, or more than they claim.
pub(super) fn check(file: &File, group: &RowGroupMetaData, row_bytes: u64) -> Result<()> {
    let limit = row_bytes.saturating_mul(PAGES);
    let mut taken = 0_u64;
    for column in group.columns() {
        taken = taken.saturating_add(largest(file, column, limit)?);
    }
    match taken <= limit {
        true => Ok(()),
        false => Err(too_large(taken, limit)),
    }
}

fn too_large(taken: u64, limit: u64) -> ParquetError {
    ParquetError::General(format!(
        "the pages of a row group take {taken} bytes of memory, and may take {limit}, {PAGES} times \
         `data.max_row_bytes`; write smaller pages, or raise that key"
    ))
}

/// Memory of the largest pages of a column: its dictionary and one data page.
fn largest(file: &File, column: &ColumnChunkMetaData, limit: u64) -> Result<u64> {
    let codec = column.compression();
    let (mut at, length) = column.byte_range();
    let end = at.saturating_add(length);
    let mut file = file.try_clone()?;
    let (mut dictionary, mut data) = (0, 0);
    while at < end {
        file.seek(SeekFrom::Start(at))?;
        let mut header = Header {
            bytes: BufReader::new((&file).take(end - at)),
            read: 0,
        };
        let page = header.page()?;
        at = at.saturating_add(header.read);
        let taken = page.taken(codec)?;
        if taken > limit {
            return Err(too_large(taken, limit));
        }
        if page.is_compressed {
            file.seek(SeekFrom::Start(at.saturating_add(page.levels)))?;
            let packed = page.compressed.saturating_sub(page.levels);
            page.unpacks_to_its_size(codec, (&file).take(packed))?;
        }
        at = at.saturating_add(page.compressed);
        let largest = match page.is_dictionary {
            true => &mut dictionary,
            false => &mut data,
        };
        *largest = taken.max(*largest);
    }
    Ok(dictionary + data)
}

/// Header of a page.
#[derive(Debug, Default, PartialEq)]
struct Page {
    is_dictionary: bool,
    uncompressed: u64,
    compressed: u64,
    /// Number of bytes before the compressed data.
    levels: u64,
    is_compressed: bool,
}

impl Page {
    /// Number of bytes that the page takes in the reader. The output of a codec is limited to a
    /// multiple of its input, except for zstd and brotli, whose runs have no limit.
    fn taken(&self, codec: Compression) -> Result<u64> {
        let most = match codec {
            Compression::UNCOMPRESSED => return Ok(self.compressed),
            Compression::SNAPPY => 22,
            Compression::LZ4 | Compression::LZ4_RAW => 255,
            Compression::GZIP(_) => 1032,
            // The library reads through a buffer of the same size.
            Compression::BROTLI(_) => return Ok(self.uncompressed.saturating_mul(2)),
            _ => return Ok(self.uncompressed),
        };
        if self.is_compressed && self.uncompressed > (self.compressed + 1) * most {
            return Err(ParquetError::General(format!(
                "a page of {} bytes claims to hold {}, which no data of this codec does: damaged, or \
                 made to exhaust memory",
                self.compressed, self.uncompressed
            )));
        }
        Ok(self.uncompressed)
    }

    /// Whether no more comes out than the header claims, for a codec that the reader does not stop
    /// there.
    fn unpacks_to_its_size(&self, codec: Compression, mut packed: impl Read) -> Result<()> {
        let most = self.uncompressed.saturating_sub(self.levels);
        let unpacked = match codec {
            Compression::GZIP(_) => count(flate2::read::MultiGzDecoder::new(packed), most),
            Compression::BROTLI(_) => {
                let mut first = [0];
                packed.read_exact(&mut first)?;
                // Windows of up to 1 GiB are an extension that Parquet does not have.
                if first[0] & 0x7f == 0x11 {
                    let message = "a brotli page with a large window".to_owned();
                    return Err(ParquetError::General(message));
                }
                let all = first.as_slice().chain(packed);
                count(brotli::Decompressor::new(all, 1 << 16), most)
            }
            // Old files use frames, whose blocks keep to their sizes.
            Compression::LZ4 => count(lz4_flex::frame::FrameDecoder::new(packed), most),
            _ => return Ok(()),
        };
        match unpacked {
            Some(unpacked) if unpacked > most => Err(ParquetError::General(format!(
                "a page holds more than the {} bytes that it claims: damaged, or made to exhaust \
                 memory",
                self.uncompressed
            ))),
            // The reader reports damage itself.
            _ => Ok(()),
        }
    }
}

/// Counts the bytes that come out, up to one more than `most`; `None` if there is an error before.
fn count(unpacked: impl Read, most: u64) -> Option<u64> {
    io::copy(&mut unpacked.take(most.saturating_add(1)), &mut io::sink()).ok()
}

/// The beginning of a page in Thrift's compact protocol.
struct Header<R> {
    bytes: R,
    read: u64,
}

impl<R: Read> Header<R> {
    fn page(&mut self) -> Result<Page> {
        let mut page = Page {
            is_compressed: true,
            ..Page::default()
        };
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (1, I32) => page.is_dictionary = self.size()? == 2,
                (2, I32) => page.uncompressed = self.size()?,
                (3, I32) => page.compressed = self.size()?,
                (8, STRUCT) => self.second_version(&mut page)?,
                (1 | 2 | 3 | 8, _) => return Err(damaged()),
                (_, kind) => self.skip(kind, 0)?,
            }
        }
        Ok(page)
    }

    fn second_version(&mut self, page: &mut Page) -> Result<()> {
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (5 | 6, I32) => page.levels = page.levels.saturating_add(self.size()?),
                (7, TRUE | FALSE) => page.is_compressed = kind == TRUE,
                (5..=7, _) => return Err(damaged()),
                (_, kind) => self.skip(kind, 0)?,
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.bytes.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Reads a number that is a size.
    fn size(&mut self) -> Result<u64> {
        let size = i32::try_from(self.signed()?).ok();
        size.and_then(|size| u64::try_from(size).ok())
            .ok_or_else(damaged)
    }

    /// Reads the type of the next field, with its id; `None` at the end of a struct.
    fn field(&mut self, id: &mut i64) -> Result<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *id = match byte >> 4 {
            0 => self.signed()?,
            more => id.saturating_add(more.into()),
        };
        Ok(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<()> {
        if depth > DEPTH {
            return Err(damaged());
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.skip_bytes(1),
            I16 | I32 | I64 => self.number().map(drop),
            DOUBLE => self.skip_bytes(8),
            BINARY => {
                let length = self.number()?;
                self.skip_bytes(length)
            }
            LIST | SET => {
                let head = self.byte()?;
                let length = match head >> 4 {
                    15 => self.number()?,
                    length => length.into(),
                };
                (0..length).try_for_each(|_| self.element(head & 0x0f, depth + 1))
            }
            MAP => {
                let length = self.number()?;
                if length == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..length).try_for_each(|_| {
                    self.element(kinds >> 4, depth + 1)?;
                    self.element(kinds & 0x0f, depth + 1)
                })
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(damaged()),
        }
    }

    /// Skips an element; a truth value takes a byte in a list, and none in a struct.
    fn element(&mut self, kind: u8, depth: u32) -> Result<()> {
        match kind {
            TRUE | FALSE => self.skip_bytes(1),
            kind => self.skip(kind, depth),
        }
    }

    fn skip_bytes(&mut self, length: u64) -> Result<()> {
        let skipped = io::copy(&mut (&mut self.bytes).take(length), &mut io::sink())?;
        self.read += skipped;
        match skipped == length {
            true => Ok(()),
            false => Err(damaged()),
        }
    }
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

fn damaged() -> ParquetError {
    ParquetError::General("the header of a page is damaged".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parquet::basic::{BrotliLevel, GzipLevel};

    use super::*;

    #[test]
    fn a_header_is_read_past_what_is_not_needed() {
        // Page type 3 (second version), sizes 300 and 200, a checksum; then levels of 3 and 4 bytes,
        // not compressed, with statistics and an unknown list.
        let mut bytes = vec![0x15, 6, 0x15, 0xd8, 4, 0x15, 0x90, 3, 0x15, 1, 0x4c];
        bytes.extend([
            0x15, 2, 0x45, 6, 0x15, 8, 0x12, 0x1c, 0x18, 2, b'a', b'b', 0,
        ]);
        bytes.extend([0x19, 0x32, 1, 1, 1, 0, 0, 99]);
        let length = bytes.len() as u64;
        let mut header = Header {
            bytes: &bytes[..],
            read: 0,
        };
        let page = Page {
            is_dictionary: false,
            uncompressed: 300,
            compressed: 200,
            levels: 7,
            is_compressed: false,
        };
        assert_eq!(header.page().unwrap(), page);
        assert_eq!(header.read, length - 1);
        for cut in 0..length as usize - 2 {
            let bytes = &bytes[..cut];
            assert!(Header { bytes, read: 0 }.page().is_err(), "{cut}");
        }
    }

    #[test]
    fn what_comes_out_of_a_page_is_counted() {
        let text = vec![b'a'; 100_000];
        let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
        frame.write_all(&text).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut wrapped = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 20);
        wrapped.write_all(&text).unwrap();
        for (codec, packed) in [
            (Compression::LZ4, frame.finish().unwrap()),
            (
                Compression::GZIP(GzipLevel::default()),
                gzip.finish().unwrap(),
            ),
            (
                Compression::BROTLI(BrotliLevel::default()),
                wrapped.into_inner(),
            ),
        ] {
            for (claimed, fits) in [(100_000, true), (99_999, false), (0, false)] {
                let page = Page {
                    uncompressed: claimed,
                    ..Page::default()
                };
                let result = page.unpacks_to_its_size(codec, &packed[..]);
                assert_eq!(result.is_ok(), fits, "{codec:?} {claimed}");
            }
        }
        let brotli = Compression::BROTLI(BrotliLevel::default());
        let large_window = Page::default().unpacks_to_its_size(brotli, &[0x11, 30][..]);
        assert!(large_window.is_err());
    }
}
