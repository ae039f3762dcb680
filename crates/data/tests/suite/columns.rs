//! Columns of Parquet: what is null, no text, or there twice is called so.

use std::sync::Arc;

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tightrope_data::{DataError, DataOptions, Dataset};

use crate::common::{CHATML, load_bytes, tokenizer};

/// A file whose columns hold these bytes, or null.
fn file(schema: &str, columns: &[&[Option<&[u8]>]]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = file.next_row_group().unwrap();
    for cells in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let ColumnWriter::ByteArrayColumnWriter(writer) = column.untyped() else {
            panic!("another column");
        };
        let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
        let values: Vec<ByteArray> = cells.iter().flatten().map(|c| c.to_vec().into()).collect();
        writer.write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    file.into_inner().unwrap()
}

fn load(bytes: Vec<u8>) -> Result<Dataset, DataError> {
    let tokenizer = tokenizer(Some(CHATML));
    load_bytes(
        "a.parquet",
        bytes,
        &DataOptions::default(),
        Some(&tokenizer),
    )
}

fn error(bytes: Vec<u8>) -> String {
    load(bytes).unwrap_err().to_string()
}

const HELLO: Option<&[u8]> = Some(b"hello world");
const WRONG: Option<&[u8]> = Some(b"\xff\xfe\x01");

#[test]
fn a_null_is_no_missing_column() {
    let schema = "message m { optional binary text (UTF8); }";
    let error = error(file(schema, &[&[HELLO, None]]));
    assert!(error.contains("row 2: `text` is null"), "{error}");
    // A null in a column of another layout counts for nothing.
    let schema = "message m { optional binary text (UTF8); optional binary messages (UTF8); }";
    let data = load(file(schema, &[&[HELLO, HELLO], &[None, None]])).unwrap();
    assert_eq!((data.report.rows, data.report.unused.len()), (2, 0));
}

#[test]
fn bytes_are_no_text_and_no_tokens() {
    let text = "message m { optional binary text; }";
    let shown = error(file(text, &[&[HELLO, WRONG]]));
    assert!(
        shown.contains("row 2: `text`: expected a string, got bytes that are not UTF-8"),
        "{shown}"
    );
    let ids = "message m { optional binary input_ids; }";
    let shown = error(file(ids, &[&[WRONG]]));
    assert!(shown.contains("got bytes that are not UTF-8"), "{shown}");
    let declared = "message m { optional binary text (UTF8); }";
    let shown = error(file(declared, &[&[HELLO, HELLO, WRONG]]));
    assert!(
        shown.ends_with("a.parquet: row 3: not valid UTF-8"),
        "{shown}"
    );
    let other = "message m { optional binary text (UTF8); optional binary picture; }";
    let data = load(file(other, &[&[HELLO], &[WRONG]])).unwrap();
    assert_eq!(data.report.unused[0].rows, 1);
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let top = "message m { optional binary text (UTF8); optional binary text (UTF8); }";
    let inner = "message m { optional group a { optional binary b; optional binary b; } }";
    for (schema, name) in [(top, "text"), (inner, "b")] {
        let error = error(file(schema, &[&[HELLO], &[HELLO]]));
        assert!(error.contains(&format!("are named `{name}`")), "{error}");
    }
    let apart =
        "message m { optional binary text (UTF8); optional group a { optional binary text; } }";
    load(file(apart, &[&[HELLO], &[HELLO]])).unwrap();
}

#[test]
fn damage_is_called_by_its_kind() {
    let whole = file("message m { optional binary text (UTF8); }", &[&[HELLO]]);
    let behind = error([&whole[..], b"more"].concat());
    assert!(behind.contains("something else may follow it"), "{behind}");
    let mut encrypted = whole.clone();
    let end = encrypted.len() - 4;
    encrypted[end..].copy_from_slice(b"PARE");
    let encrypted = error(encrypted);
    assert!(
        encrypted.contains("is encrypted") && !encrypted.contains("cut off"),
        "{encrypted}"
    );
}
