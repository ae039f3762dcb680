//! CSV (and tab-separated) rows: the first record names the columns, every value is text.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::{Raw, RawRow, Rows, Text};
use crate::error::{DataError, RowProblem};

pub(super) struct CsvRows {
    path: std::path::PathBuf,
    reader: csv::Reader<Box<dyn Read + Send>>,
    columns: Vec<String>,
    consumed: Arc<AtomicU64>,
    /// Lines before the first record.
    skipped_lines: u64,
    row: u64,
}

impl CsvRows {
    pub fn new(text: Text, first: Vec<u8>, skipped_lines: u64) -> Result<Self, DataError> {
        let tabs = first.contains(&b'\t') && !first.contains(&b',');
        let Text {
            path,
            reader,
            consumed,
        } = text;
        let stream: Box<dyn Read + Send> = Box::new(Cursor::new(first).chain(reader));
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if tabs { b'\t' } else { b',' })
            .from_reader(stream);
        let header = reader.headers().map_err(|e| container(&path, &e))?;
        let columns = header.iter().map(str::to_owned).collect();
        Ok(Self {
            path,
            reader,
            columns,
            consumed,
            skipped_lines,
            row: 0,
        })
    }
}

fn container(path: &std::path::Path, error: &csv::Error) -> DataError {
    DataError::Container {
        path: path.to_owned(),
        message: format!("invalid CSV: {error}"),
    }
}

impl Rows for CsvRows {
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        let mut record = csv::ByteRecord::new();
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
                _ => return Err(container(&self.path, &error)),
            },
        };
        self.row += 1;
        Ok(Some(RawRow { row: self.row, raw }))
    }

    fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}
