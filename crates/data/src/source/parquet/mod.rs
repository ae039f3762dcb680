//! Parquet rows, nested lists and structs included.

mod limits;
mod pages;

use std::collections::HashSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use self::limits::{Watch, WatchedGroup};
use super::{BYTES, Limits, Raw, RawRow, Rows};
use crate::error::{BadRow, DataError, Place, RowProblem};

pub(super) struct ParquetRows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// The same file, to look at pages before they are read.
    file: File,
    /// Index of the next row group.
    group: usize,
    rows: Option<ReaderIter>,
    row: u64,
    total_rows: u64,
    bytes: u64,
    limits: Limits,
    watch: Watch,
}

impl ParquetRows {
    pub(super) fn open(path: &Path, file: File, limits: Limits) -> Result<Self, DataError> {
        let bytes = file.metadata().map_err(DataError::io(path))?.len();
        let same = file.try_clone().map_err(DataError::io(path))?;
        let opened = guarded(path, || {
            let reader = SerializedFileReader::new(file)?;
            let total_rows = reader.metadata().file_metadata().num_rows();
            Ok(Self {
                path: path.to_owned(),
                reader,
                file: same,
                group: 0,
                rows: None,
                row: 0,
                total_rows: total_rows.max(1) as u64,
                bytes,
                limits,
                watch: Watch::new(limits.row_bytes),
            })
        })?;
        match twice(opened.reader.metadata().file_metadata().schema()) {
            None => Ok(opened),
            Some(name) => Err(DataError::Container {
                path: path.to_owned(),
                message: format!(
                    "two columns, or two fields of one column, are named `{name}`; rename one of \
                     them, or remove it"
                ),
            }),
        }
    }

    fn next(&mut self) -> Result<Option<Row>, ParquetError> {
        loop {
            if let Some(row) = self.rows.as_mut().and_then(Iterator::next) {
                return row.map(Some);
            }
            if self.group == self.reader.num_row_groups() {
                return Ok(None);
            }
            let described = self.reader.metadata().row_group(self.group);
            pages::check(&self.file, described, self.limits.row_bytes as u64)?;
            let group = WatchedGroup {
                group: self.reader.get_row_group(self.group)?,
                watch: self.watch.clone(),
            };
            self.group += 1;
            let schema = self.reader.metadata().file_metadata().schema_descr_ptr();
            let lists = schema.columns().iter().any(|c| c.max_rep_level() > 0);
            // With lists, one record is in memory at a time.
            let batch = if lists { 1 } else { 1024 };
            let tree = TreeBuilder::new().with_batch_size(batch);
            self.rows = Some(tree.as_iter(schema, &group)?);
        }
    }
}

/// A name that two fields of one group have, so that only one of their values could count.
fn twice(schema: &Type) -> Option<&str> {
    let mut groups = vec![schema];
    while let Some(group) = groups.pop() {
        let mut names = HashSet::new();
        for field in group.get_fields() {
            if !names.insert(field.name()) {
                return Some(field.name());
            }
            if field.is_group() {
                groups.push(field);
            }
        }
    }
    None
}

/// The Parquet reader asserts properties that damaged files violate; its panics become errors here.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let message = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => {
            let text = error.to_string();
            let text = text.trim_start_matches("Parquet error: ");
            let cut = text.contains("Corrupt footer") || text.contains("EOF");
            if text.contains("encrypted") {
                "the file is encrypted; write it without encryption".to_owned()
            } else if text.contains("invalid utf8") {
                "the description of the columns is damaged".to_owned()
            } else if cut {
                format!("{text}; the file may be cut off, or something else may follow it")
            } else {
                text.to_owned()
            }
        }
        Err(_) => "damaged beyond what the reader can describe".to_owned(),
    };
    Err(DataError::Container {
        path: path.to_owned(),
        message: format!("invalid Parquet: {message}"),
    })
}

impl Rows for ParquetRows {
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        let path = self.path.clone();
        let read = guarded(&path, || self.next());
        if self.watch.exceeded() {
            return Err(self.limits.row_too_large(&path));
        }
        self.row += 1;
        let row = match read {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(None),
            // The reader's words repeat all bytes of the text.
            Err(DataError::Container { message, .. }) if message.contains("FromUtf8Error") => {
                let place = Place {
                    path,
                    row: self.row,
                    line: None,
                    column: None,
                };
                let problem = RowProblem::Utf8;
                return Err(DataError::Broken(Box::new(BadRow { place, problem })));
            }
            Err(error) => return Err(error),
        };
        Ok(Some(RawRow {
            row: self.row,
            raw: Raw::Fields {
                fields: columns(row).collect(),
                line: None,
            },
        }))
    }

    /// Estimated in proportion to the rows, because the reader does not read the file in order.
    fn consumed(&self) -> u64 {
        (self.bytes as u128 * self.row.min(self.total_rows) as u128 / self.total_rows as u128)
            as u64
    }
}

fn columns(row: Row) -> impl Iterator<Item = (String, Value)> {
    let columns = row.into_columns().into_iter();
    columns.map(|(name, field)| (name, value(field)))
}

/// A null in a struct counts as absent, because the struct has the keys of all rows. Only a null
/// answer beside calls of tools is a value of its own.
fn object(row: Row) -> Map<String, Value> {
    columns(row)
        .filter(|(name, value)| name == "content" || !value.is_null())
        .collect()
}

fn value(field: Field) -> Value {
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => x.into(),
        Field::Byte(x) => x.into(),
        Field::Short(x) => x.into(),
        Field::Int(x) => x.into(),
        Field::Long(x) => x.into(),
        Field::UByte(x) => x.into(),
        Field::UShort(x) => x.into(),
        Field::UInt(x) => x.into(),
        Field::ULong(x) => x.into(),
        Field::Float16(x) => float(x.to_f64()),
        Field::Float(x) => float(f64::from(x)),
        Field::Double(x) => float(x),
        Field::Str(x) => x.into(),
        Field::Bytes(x) => match std::str::from_utf8(x.data()) {
            Ok(text) => text.into(),
            Err(_) => Value::Object(Map::from_iter([(BYTES.to_owned(), x.len().into())])),
        },
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => map
            .entries()
            .iter()
            .cloned()
            .map(|(key, field)| {
                let key = match value(key) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                (key, value(field))
            })
            .collect(),
        // Dates, times and decimals become text.
        other => other.to_string().into(),
    }
}
