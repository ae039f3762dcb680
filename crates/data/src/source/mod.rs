//! Files to rows: what a file is, is decided by its bytes; rows come in bounded chunks.

mod csv;
mod json;
mod locate;
mod parquet;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use crate::error::{BadRow, DataError, KeyPath, Place, RowProblem};

/// A row of more bytes than this is refused: it is either no data or meant to exhaust memory.
const MAX_ROW_BYTES: usize = 256 << 20;
/// A chunk ends at this many rows …
const CHUNK_ROWS: usize = 4096;
/// … or bytes, whichever comes first.
const CHUNK_BYTES: usize = 8 << 20;

/// A row whose JSON is not parsed yet, so that parsing happens on all cores.
#[derive(Debug)]
pub(crate) struct RawRow {
    /// Counts from 1.
    pub row: u64,
    pub raw: Raw,
}

#[derive(Debug)]
pub(crate) enum Raw {
    /// Text of a JSON value and where its first byte stands.
    Json {
        text: Vec<u8>,
        line: u64,
        column: u64,
    },
    /// Already decoded (Parquet, CSV); `line` where there is one.
    Fields {
        fields: Map<String, Value>,
        line: Option<u64>,
    },
    /// Not decodable.
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

    /// The row as an object.
    pub fn parse(&self, path: &Path) -> Result<Map<String, Value>, Box<BadRow>> {
        let (text, line, column) = match &self.raw {
            Raw::Fields { fields, .. } => return Ok(fields.clone()),
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
        match serde_json::from_str(checked) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(other) => Err(bad(0, RowProblem::NotAnObject(type_name(&other)))),
            Err(e) => {
                let offset = locate::offset_of(text, e.line(), e.column());
                // serde_json appends its own, relative position.
                let message = e.to_string();
                let message = message.split(" at line ").next().unwrap_or(&message);
                Err(bad(offset, RowProblem::Json(message.to_owned())))
            }
        }
    }

    /// A problem of this row, placed at the value at fault if there is one.
    pub fn bad(&self, path: &Path, problem: RowProblem) -> Box<BadRow> {
        Box::new(BadRow {
            place: self.place(path, problem.key()),
            problem,
        })
    }

    /// Where the row, or the value that `key` leads to in it, stands.
    pub fn place(&self, path: &Path, key: Option<&KeyPath>) -> Place {
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
        Value::String(s) => s.len() + 16,
        Value::Array(a) => a.iter().map(value_bytes).sum::<usize>() + 16,
        Value::Object(o) => o.values().map(value_bytes).sum::<usize>() + 16,
        _ => 16,
    }
}

/// JSON's word for the type of a value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// One kind of file.
trait Rows: Send {
    /// The next row; an error here means that nothing after it can be read.
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError>;
    /// Bytes of the file consumed so far.
    fn consumed(&self) -> u64;
}

/// An open file of rows.
pub(crate) struct Source {
    rows: Box<dyn Rows>,
}

impl Source {
    /// Opens a file and finds out what it is.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let io = || DataError::io(path);
        let mut file = File::open(path).map_err(io())?;
        let mut magic = Vec::with_capacity(4);
        Read::by_ref(&mut file)
            .take(4)
            .read_to_end(&mut magic)
            .map_err(io())?;
        if magic == *b"PAR1" {
            let rows = parquet::ParquetRows::open(path, file)?;
            return Ok(Self {
                rows: Box::new(rows),
            });
        }
        let counter = Arc::new(AtomicU64::new(0));
        let counting = Counting {
            inner: Cursor::new(magic.clone()).chain(file),
            count: counter.clone(),
        };
        let reader: Box<dyn Read + Send> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(counting)),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                Box::new(zstd::stream::read::Decoder::new(counting).map_err(io())?)
            }
            _ => Box::new(counting),
        };
        let text = Text {
            path: path.to_owned(),
            reader: BufReader::with_capacity(1 << 18, reader),
            consumed: counter,
        };
        Ok(Self {
            rows: open_text(text)?,
        })
    }

    /// The next rows, in order; empty at the end.
    pub fn next_chunk(&mut self) -> Result<Vec<RawRow>, DataError> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
            let Some(row) = self.rows.next_row()? else {
                break;
            };
            bytes += row.bytes();
            chunk.push(row);
        }
        Ok(chunk)
    }

    /// Bytes of the file consumed so far.
    pub fn consumed(&self) -> u64 {
        self.rows.consumed()
    }
}

/// A decompressed stream of text.
struct Text {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    consumed: Arc<AtomicU64>,
}

/// Counts what is read from the file, before decompression.
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

/// Tells JSON lines, a JSON document and CSV apart by the first line that is not blank.
fn open_text(mut text: Text) -> Result<Box<dyn Rows>, DataError> {
    let mut skipped_lines = 0;
    let first = loop {
        let mut line = Vec::new();
        if read_line(&mut text, &mut line)? == 0 {
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
    let trimmed = first.trim_ascii();
    let named_json = text
        .path
        .to_string_lossy()
        .to_ascii_lowercase()
        .contains(".json");
    if trimmed[0] == b'[' {
        return Ok(Box::new(json::Document::new(text, first, skipped_lines)?));
    }
    if trimmed[0] != b'{' && !named_json {
        return Ok(Box::new(csv::CsvRows::new(text, first, skipped_lines)?));
    }
    if trimmed[0] == b'{' && json::is_document(trimmed, &mut text)? {
        return Ok(Box::new(json::Document::new(text, first, skipped_lines)?));
    }
    Ok(Box::new(json::Lines::new(text, first, skipped_lines)))
}

/// Appends a line with its end; refuses one that would exhaust memory.
fn read_line(text: &mut Text, line: &mut Vec<u8>) -> Result<usize, DataError> {
    let n = Read::by_ref(&mut text.reader)
        .take(MAX_ROW_BYTES as u64 + 1)
        .read_until(b'\n', line)
        .map_err(DataError::io(&text.path))?;
    if n > MAX_ROW_BYTES {
        return Err(row_too_large(&text.path));
    }
    Ok(n)
}

fn row_too_large(path: &Path) -> DataError {
    DataError::Container {
        path: path.to_owned(),
        message: format!("a row of more than {} MiB", MAX_ROW_BYTES >> 20),
    }
}
