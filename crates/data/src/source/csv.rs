//! Rows separated by commas, tabs or semicolons: the first record names the columns, and every
//! value is text.

use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};
use tightrope_report::numbers::counted;

use super::quotes::{Seen, Watched};
use super::{Limits, Raw, RawRow, Rows, Text, io_error};
use crate::error::{BadRow, DataError, Place, RowProblem};

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
        let between = between.unwrap_or(b',');
        let seen = Arc::new(Seen::default());
        let stream: Box<dyn Read + Send> = Box::new(Watched::new(
            Cursor::new(first).chain(reader),
            seen.clone(),
            between,
            limits.row_bytes,
        ));
        let failed = Failed {
            path,
            compressed,
            limits,
            seen,
            before: skipped_lines,
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(between)
            .from_reader(stream);
        let header = reader.headers().map_err(|e| failed.because(0, e))?;
        failed.check_quotes(0)?;
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
    seen: Arc<Seen>,
    /// Number of lines before the stream.
    before: u64,
}

impl Failed {
    fn because(&self, row: u64, error: csv::Error) -> DataError {
        if self.seen.bytes() > self.limits.row_bytes {
            let limit = self.limits.row_bytes;
            return match self.seen.open_quote() {
                None => self.limits.row_too_large(&self.path),
                Some(line) => self.open_quote(
                    row,
                    line,
                    &format!("within {} (`max_row_bytes`)", counted(limit as u64, "byte")),
                ),
            };
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

impl Failed {
    /// Refuses a file that ends inside quotes: they have taken in every record behind them.
    fn check_quotes(&self, row: u64) -> Result<(), DataError> {
        match self.seen.open_quote() {
            Some(line) if self.seen.has_ended() => {
                Err(self.open_quote(row, line, "before the end of the file"))
            }
            _ => Ok(()),
        }
    }

    fn open_quote(&self, row: u64, line: u64, how_far: &str) -> DataError {
        DataError::Broken(Box::new(BadRow {
            place: Place {
                path: self.path.clone(),
                row,
                line: Some(self.before + line),
                column: None,
            },
            problem: RowProblem::Csv(format!(
                "a quote opens a value on this line, and nothing closes it {how_far}; a quote inside \
                 a value is written twice, in quotes"
            )),
        }))
    }
}

fn csv_words(kind: &csv::ErrorKind) -> String {
    match kind {
        csv::ErrorKind::Utf8 { err, .. } => format!("not valid UTF-8: {err}"),
        other => format!("{other:?}"),
    }
}

impl Rows for CsvRows {
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        let mut record = csv::ByteRecord::new();
        self.failed.seen.begin_record();
        let result = self.reader.read_byte_record(&mut record);
        self.failed.check_quotes(self.row + 1)?;
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
                        "{}, but the header names {expected_len}",
                        counted(*len, "field")
                    )),
                    line: line(pos.as_ref(), self.skipped_lines),
                    column: None,
                },
                _ => return Err(self.failed.because(self.row + 1, error)),
            },
        };
        self.row += 1;
        Ok(Some(RawRow { row: self.row, raw }))
    }

    fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}
