//! Rows separated by commas, tabs or semicolons: the first record names the columns, and every
//! value is text.

use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::{Map, Value};

use super::{Limits, Raw, RawRow, Rows, Text, io_error};
use crate::error::{DataError, RowProblem};

pub(super) struct CsvRows {
    failed: Failed,
    reader: csv::Reader<Box<dyn Read + Send>>,
    columns: Vec<String>,
    consumed: Arc<AtomicU64>,
    /// Number of lines that the reader has not counted.
    skipped_lines: u64,
    row: u64,
}

impl CsvRows {
    pub(super) fn new(text: Text, first: Vec<u8>, skipped_lines: u64) -> Result<Self, DataError> {
        // Spreadsheets in many countries write semicolons.
        let between = [b',', b'\t', b';'].into_iter().find(|b| first.contains(b));
        // The reader leaves the second byte of such a line end to the next record.
        let behind = u64::from(first.ends_with(b"\r\n"));
        let Text {
            path,
            reader,
            consumed,
            compressed,
            limits,
        } = text;
        let since = Arc::new(AtomicUsize::new(0));
        let stream: Box<dyn Read + Send> = Box::new(Limited {
            inner: Cursor::new(first).chain(reader),
            since: since.clone(),
            limit: limits.row_bytes,
        });
        let failed = Failed {
            path,
            compressed,
            limits,
            since,
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(between.unwrap_or(b','))
            .from_reader(stream);
        let header = reader.headers().map_err(|e| failed.because(e))?;
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        // Spreadsheets write columns without a name at the end of a table.
        for (index, name) in columns.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            if let Some(first) = columns[..index].iter().position(|before| before == name) {
                return Err(DataError::Container {
                    path: failed.path,
                    message: format!(
                        "columns {} and {} are both named `{name}`; rename one of them, or \
                         remove it",
                        first + 1,
                        index + 1
                    ),
                });
            }
        }
        Ok(Self {
            failed,
            reader,
            columns,
            consumed,
            skipped_lines: skipped_lines + behind,
            row: 0,
        })
    }
}

/// Facts that explain why reading failed.
struct Failed {
    path: PathBuf,
    compressed: bool,
    limits: Limits,
    /// Number of bytes read since the last record ended.
    since: Arc<AtomicUsize>,
}

impl Failed {
    fn because(&self, error: csv::Error) -> DataError {
        if self.since.load(Ordering::Relaxed) > self.limits.row_bytes {
            return self.limits.row_too_large(&self.path);
        }
        match error.into_kind() {
            csv::ErrorKind::Io(error) => io_error(&self.path, self.compressed, error),
            other => DataError::Container {
                path: self.path.clone(),
                message: format!("invalid CSV: {}", csv_words(&other)),
            },
        }
    }
}

fn csv_words(kind: &csv::ErrorKind) -> String {
    match kind {
        csv::ErrorKind::Utf8 { err, .. } => format!("not valid UTF-8: {err}"),
        other => format!("{other:?}"),
    }
}

/// Ends the stream if a record does not end: an open quote would take in everything that follows.
struct Limited<R> {
    inner: R,
    since: Arc<AtomicUsize>,
    limit: usize,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let since = self.since.fetch_add(n, Ordering::Relaxed) + n;
        if since > self.limit.saturating_add(buffer.len()) {
            return Err(io::Error::other("a row that is too large"));
        }
        Ok(n)
    }
}

impl Rows for CsvRows {
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        let mut record = csv::ByteRecord::new();
        self.failed.since.store(0, Ordering::Relaxed);
        let result = self.reader.read_byte_record(&mut record);
        let line = |position: Option<&csv::Position>, skipped| {
            position.map(|position| position.line() + skipped)
        };
        let raw = match result {
            Ok(false) => return Ok(None),
            Ok(true) => {
                let line = line(record.position(), self.skipped_lines);
                let mut fields = Map::new();
                let mut problem = None;
                for (column, value) in self.columns.iter().zip(record.iter()) {
                    match std::str::from_utf8(value) {
                        Ok(value) => {
                            fields.insert(column.clone(), Value::String(value.to_owned()));
                        }
                        Err(_) => problem = Some(RowProblem::Utf8),
                    }
                }
                match problem {
                    None => Raw::Fields { fields, line },
                    Some(problem) => Raw::Broken {
                        problem,
                        line,
                        column: None,
                    },
                }
            }
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths {
                    pos,
                    expected_len,
                    len,
                } => Raw::Broken {
                    problem: RowProblem::Csv(format!(
                        "{len} fields, but the header names {expected_len}"
                    )),
                    line: line(pos.as_ref(), self.skipped_lines),
                    column: None,
                },
                _ => return Err(self.failed.because(error)),
            },
        };
        self.row += 1;
        Ok(Some(RawRow { row: self.row, raw }))
    }

    fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}
