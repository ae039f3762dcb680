//! Reads files as rows: the bytes of a file decide its kind, and rows come in bounded chunks.

mod csv;
pub(crate) mod foreign;
mod gzip;
mod json;
mod line_ends;
mod locate;
mod parquet;
mod quotes;
mod strict;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use self::line_ends::LineEnds;
use self::strict::Refused;
use crate::columns::Columns;
use crate::error::{BadRow, DataError, KeyPath, Place, RowProblem};

/// Size that is counted for a value that is not text, in bytes.
const VALUE_BYTES: usize = 8;
/// Number of bytes that identify the kind of a file.
const BEGINNING: u64 = 512;
/// Largest number of rows in a chunk.
const CHUNK_ROWS: usize = 4096;
/// Size in bytes at which a chunk ends.
const CHUNK_BYTES: usize = 8 << 20;

/// Limits of a row, whatever the file says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A row of more bytes is refused: it is either no data or an attack on the memory.
    pub row_bytes: usize,
}

impl Limits {
    fn row_too_large(&self, path: &Path) -> DataError {
        DataError::RowTooLarge {
            path: path.to_owned(),
            limit: self.row_bytes,
        }
    }
}

/// A row whose JSON is not parsed yet, so that parsing happens on all cores.
#[derive(Debug)]
pub(crate) struct RawRow {
    /// Number of the row, from 1.
    pub row: u64,
    pub raw: Raw,
}

#[derive(Debug)]
pub(crate) enum Raw {
    /// Text of a JSON value, and the place of its first byte.
    Json {
        text: Vec<u8>,
        line: u64,
        column: u64,
    },
    /// A decoded row (Parquet, CSV); `line` if there is one.
    Fields {
        fields: Map<String, Value>,
        line: Option<u64>,
    },
    /// A row that cannot be decoded.
    Broken {
        problem: RowProblem,
        line: Option<u64>,
        column: Option<u64>,
    },
}

impl RawRow {
    fn bytes(&self) -> usize {
        match &self.raw {
            Raw::Json { text, .. } => text.len(),
            Raw::Fields { fields, .. } => fields.values().map(value_bytes).sum(),
            Raw::Broken { .. } => 0,
        }
    }

    /// Returns the row as an object, by value if it is already decoded.
    pub(crate) fn take(&mut self, path: &Path) -> Result<Map<String, Value>, Box<BadRow>> {
        match &mut self.raw {
            Raw::Fields { fields, .. } => Ok(std::mem::take(fields)),
            _ => self.parse(path).map(Cow::into_owned),
        }
    }

    /// Returns the row as an object.
    pub(crate) fn parse(&self, path: &Path) -> Result<Cow<'_, Map<String, Value>>, Box<BadRow>> {
        let (text, line, column) = match &self.raw {
            Raw::Fields { fields, .. } => return Ok(Cow::Borrowed(fields)),
            Raw::Broken { problem, .. } => return Err(self.bad(path, problem.clone())),
            Raw::Json { text, line, column } => (text, *line, *column),
        };
        let bad = |offset, problem| {
            let (line, column) = locate::advance(text, offset, line, column);
            let mut bad = self.bad(path, problem);
            bad.place.line = Some(line);
            bad.place.column = Some(column);
            bad
        };
        let checked =
            std::str::from_utf8(text).map_err(|e| bad(e.valid_up_to(), RowProblem::Utf8))?;
        match strict::parse(checked) {
            Ok(Value::Object(fields)) => Ok(Cow::Owned(fields)),
            Ok(other) => Err(bad(0, RowProblem::NotAnObject(type_name(&other)))),
            Err(Refused::Twice(key, offset)) => Err(bad(offset, RowProblem::Twice { key })),
            Err(Refused::Json(e)) => {
                let offset = locate::offset_of(text, e.line(), e.column());
                let is_whole = text[..offset].trim_ascii_end().ends_with(b"}");
                if is_whole && text[offset..].trim_ascii() == b"," {
                    return Err(bad(offset, RowProblem::Comma));
                }
                // serde_json appends its own, relative position.
                let message = e.to_string();
                let message = message.split(" at line ").next().unwrap_or(&message);
                let words = json::words(message, &text[offset..]);
                Err(bad(offset, RowProblem::Json(words)))
            }
        }
    }

    /// Makes an error of this row, at the wrong value if there is one.
    pub(crate) fn bad(&self, path: &Path, problem: RowProblem) -> Box<BadRow> {
        Box::new(BadRow {
            place: self.place(path, problem.key()),
            problem,
        })
    }

    /// Place of the row, or of the value at `key` in it.
    pub(crate) fn place(&self, path: &Path, key: Option<&KeyPath>) -> Place {
        let (line, column) = match &self.raw {
            Raw::Json { text, line, column } => {
                let offset = key.and_then(|key| locate::find(text, key)).unwrap_or(0);
                let (line, column) = locate::advance(text, offset, *line, *column);
                (Some(line), Some(column))
            }
            Raw::Fields { line, .. } => (*line, None),
            Raw::Broken { line, column, .. } => (*line, *column),
        };
        Place {
            path: path.to_owned(),
            row: self.row,
            line,
            column,
        }
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + VALUE_BYTES,
        Value::Array(a) => a.iter().map(value_bytes).sum::<usize>() + VALUE_BYTES,
        Value::Object(o) => o.values().map(value_bytes).sum::<usize>() + VALUE_BYTES,
        _ => VALUE_BYTES,
    }
}

/// Key of the object that stands for bytes that are no text, as Parquet can hold them; no reader
/// takes it for anything else.
const BYTES: &str = "bytes that are not UTF-8";

/// JSON's name for the type of a value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.contains_key(BYTES) => BYTES,
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A kind of file.
trait Rows: Send {
    /// The next row; an error here means that nothing after it can be read.
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError>;
    /// Number of bytes of the file consumed so far.
    fn consumed(&self) -> u64;
}

/// An open file of rows.
pub(crate) struct Source {
    rows: Box<dyn Rows>,
    path: PathBuf,
    limits: Limits,
}

impl Source {
    /// Opens a file and determines its kind. An object with one of the `columns` is a row.
    pub(crate) fn open(path: &Path, limits: Limits, columns: &Columns) -> Result<Self, DataError> {
        let io = || DataError::io(path);
        if path.is_dir() {
            return Err(foreign::folder(path));
        }
        let mut file = File::open(path).map_err(io())?;
        let mut start = Vec::new();
        let beginning = Read::by_ref(&mut file).take(BEGINNING);
        BufReader::new(beginning)
            .read_to_end(&mut start)
            .map_err(io())?;
        let opened = |rows| Self {
            rows,
            path: path.to_owned(),
            limits,
        };
        if start.starts_with(b"PAR1") {
            let rows = parquet::ParquetRows::open(path, file, limits)?;
            return Ok(opened(Box::new(rows)));
        }
        let counter = Arc::new(AtomicU64::new(0));
        let (gzip, zstd) = (start.starts_with(b"\x1f\x8b"), is_zstd(&start));
        if !gzip && !zstd {
            foreign::refuse(path, &start)?;
        }
        let counting = Counting {
            inner: Cursor::new(start).chain(file),
            count: counter.clone(),
        };
        let reader: Box<dyn Read + Send> = if gzip {
            Box::new(gzip::Gzip::new(counting))
        } else if zstd {
            Box::new(zstd::stream::read::Decoder::new(counting).map_err(io())?)
        } else {
            Box::new(counting)
        };
        let mut text = Text {
            path: path.to_owned(),
            reader: BufReader::with_capacity(1 << 18, Box::new(LineEnds::of(reader))),
            consumed: counter,
            compressed: gzip || zstd,
            limits,
        };
        if text.compressed {
            let start = text.reader.fill_buf();
            let start = start.map_err(|e| io_error(path, true, e))?;
            foreign::refuse(path, &start[..start.len().min(BEGINNING as usize)])?;
        }
        Ok(opened(open_text(text, columns)?))
    }

    /// Returns the next rows in order; empty at the end.
    pub(crate) fn next_chunk(&mut self) -> Result<Vec<RawRow>, DataError> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
            let Some(row) = self.rows.next_row()? else {
                break;
            };
            let row_bytes = row.bytes();
            if row_bytes > self.limits.row_bytes {
                return Err(self.limits.row_too_large(&self.path));
            }
            bytes += row_bytes;
            chunk.push(row);
        }
        Ok(chunk)
    }

    /// Number of bytes of the file consumed so far.
    pub(crate) fn consumed(&self) -> u64 {
        self.rows.consumed()
    }
}

/// Whether a file begins with a frame of zstd, or with one to be skipped, as pzstd writes it.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(b"\x28\xb5\x2f\xfd")
        || (start.get(1..4) == Some(b"\x2a\x4d\x18") && start[0] & 0xf0 == 0x50)
}

/// A decompressed stream of text.
struct Text {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    consumed: Arc<AtomicU64>,
    compressed: bool,
    limits: Limits,
}

impl Text {
    fn failed(&self, error: io::Error) -> DataError {
        io_error(&self.path, self.compressed, error)
    }
}

/// Reports a compressed file whose end is missing, or is followed by something else.
fn io_error(path: &Path, compressed: bool, source: io::Error) -> DataError {
    let text = source.to_string();
    let cut = source.kind() == io::ErrorKind::UnexpectedEof || text.contains("incomplete frame");
    if compressed && cut {
        return DataError::Container {
            path: path.to_owned(),
            message: "the compressed data ends too early: the file is cut off; fetch it again"
                .to_owned(),
        };
    }
    // The first frame of zstd is known, so this one lies behind it.
    let behind = match text.contains("Unknown frame descriptor") {
        true => Some("bytes follow the end of the zstd data"),
        false => (text == gzip::BEHIND).then_some(gzip::BEHIND),
    };
    if let (true, Some(behind)) = (compressed, behind) {
        return DataError::Container {
            path: path.to_owned(),
            message: format!("{behind} and are no part of it; fetch it again, or unpack it"),
        };
    }
    DataError::io(path)(source)
}

/// Counts the bytes that are read from the file, before decompression.
struct Counting<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Distinguishes JSON lines, a JSON document and CSV by the first line that is not blank, or by as
/// much of it as a row may have: a document may be on one line.
fn open_text(mut text: Text, columns: &Columns) -> Result<Box<dyn Rows>, DataError> {
    let mut skipped_lines = 0;
    let first = loop {
        let mut line = Vec::new();
        if append_line(&mut text, &mut line)? == 0 {
            return Err(DataError::EmptyFile { path: text.path });
        }
        if skipped_lines == 0 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if !line.trim_ascii().is_empty() {
            break line;
        }
        skipped_lines += 1;
    };
    let too_large = text.limits.row_too_large(&text.path);
    let whole = first.len() <= text.limits.row_bytes;
    let trimmed = first.trim_ascii();
    let named_json = text
        .path
        .to_string_lossy()
        .to_ascii_lowercase()
        .contains(".json");
    if trimmed[0] == b'[' {
        return Ok(Box::new(json::Document::new(text, first, skipped_lines)?));
    }
    if trimmed[0] == b'{' && !whole {
        let document = json::Document::new(text, first, skipped_lines);
        return Ok(Box::new(document.map_err(|_| too_large)?));
    }
    if !whole {
        return Err(too_large);
    }
    if trimmed[0] != b'{' && !named_json {
        return Ok(Box::new(csv::CsvRows::new(text, first, skipped_lines)?));
    }
    if trimmed[0] == b'{' && json::is_document(trimmed, &mut text, columns)? {
        return Ok(Box::new(json::Document::new(text, first, skipped_lines)?));
    }
    Ok(Box::new(json::Lines::new(text, first, skipped_lines)))
}

/// Appends a line with its end; refuses a line that would exhaust memory.
fn read_line(text: &mut Text, line: &mut Vec<u8>) -> Result<usize, DataError> {
    let n = append_line(text, line)?;
    if n > text.limits.row_bytes {
        return Err(text.limits.row_too_large(&text.path));
    }
    Ok(n)
}

/// Appends a line with its end, or its beginning up to one byte more than a row may have.
fn append_line(text: &mut Text, line: &mut Vec<u8>) -> Result<usize, DataError> {
    let limit = text.limits.row_bytes as u64;
    Read::by_ref(&mut text.reader)
        .take(limit.saturating_add(1))
        .read_until(b'\n', line)
        .map_err(|e| text.failed(e))
}
