//! Parquet rows, nested lists and structs included.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

use super::{Raw, RawRow, Rows};
use crate::error::DataError;

pub(super) struct ParquetRows {
    path: PathBuf,
    rows: RowIter<'static>,
    row: u64,
    total_rows: u64,
    bytes: u64,
}

impl ParquetRows {
    pub fn open(path: &Path, file: File) -> Result<Self, DataError> {
        let bytes = file.metadata().map_err(DataError::io(path))?.len();
        guarded(path, || {
            let reader = SerializedFileReader::new(file)?;
            let total_rows = reader.metadata().file_metadata().num_rows();
            Ok(Self {
                path: path.to_owned(),
                rows: RowIter::from_file_into(Box::new(reader)),
                row: 0,
                total_rows: total_rows.max(1) as u64,
                bytes,
            })
        })
    }
}

/// The Parquet reader asserts what damaged files violate; its panics become errors here.
fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, parquet::errors::ParquetError>,
) -> Result<T, DataError> {
    let message = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "damaged beyond what the reader can describe".to_owned(),
    };
    Err(DataError::Container {
        path: path.to_owned(),
        message: format!("invalid Parquet: {message}"),
    })
}

impl Rows for ParquetRows {
    fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        let rows = &mut self.rows;
        let Some(row) = guarded(&self.path, || rows.next().transpose())? else {
            return Ok(None);
        };
        self.row += 1;
        Ok(Some(RawRow {
            row: self.row,
            raw: Raw::Fields {
                fields: object(&row),
                line: None,
            },
        }))
    }

    /// In proportion to the rows: the reader jumps about in the file.
    fn consumed(&self) -> u64 {
        (self.bytes as u128 * self.row.min(self.total_rows) as u128 / self.total_rows as u128)
            as u64
    }
}

fn object(row: &Row) -> Map<String, Value> {
    row.get_column_iter()
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

fn value(field: &Field) -> Value {
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        Field::Float16(x) => float(x.to_f64()),
        Field::Float(x) => float(f64::from(*x)),
        Field::Double(x) => float(*x),
        Field::Str(x) => x.clone().into(),
        Field::Bytes(x) => match std::str::from_utf8(x.data()) {
            Ok(text) => text.into(),
            Err(_) => x.data().into(),
        },
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => map
            .entries()
            .iter()
            .map(|(key, field)| {
                let key = match value(key) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                (key, value(field))
            })
            .collect(),
        // Dates, times and decimals, as text.
        other => other.to_string().into(),
    }
}
