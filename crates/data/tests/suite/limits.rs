//! No file takes more memory than its limit, whatever it claims, and files of other kinds have
//! helpful errors.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tightrope_data::{DataError, DataOptions, Dataset};

use crate::common::{load_bytes, tokenizer};

fn load(name: &str, bytes: impl AsRef<[u8]>) -> Result<Dataset, DataError> {
    let options = DataOptions {
        max_row_bytes: 1 << 16,
        ..DataOptions::default()
    };
    load_bytes(name, bytes, &options, Some(&tokenizer(None)))
}

fn error(name: &str, bytes: impl AsRef<[u8]>) -> String {
    match load(name, bytes) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{name} was read"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn rows_beyond_the_limit_are_refused() {
    let long = "a".repeat(1 << 17);
    let fits = "a".repeat(1 << 15);
    let row = |text: &str| format!("{{\"text\": \"{text}\"}}");
    for (name, bytes) in [
        ("a.jsonl", row(&long)),
        ("a.json", format!("[{}]", row(&long))),
        ("a.csv", format!("text\n\"{long}\"\n")),
        ("open.csv", format!("text\n\"{}", "a\n".repeat(1 << 17))),
        ("header.csv", format!("\"{}", "a\n".repeat(1 << 17))),
    ] {
        for bytes in [bytes.clone().into_bytes(), gzip(bytes.as_bytes())] {
            let shown = error(name, &bytes);
            assert!(shown.contains("`max_row_bytes`"), "{name}: {shown}");
        }
    }
    for (name, bytes) in [
        ("a.jsonl", format!("{0}\n{0}\n{0}\n", row(&fits))),
        ("a.json", format!("[{0}, {0}, {0}]", row(&fits))),
        (
            "a.json",
            format!("{{\"data\": [{0}, {0}, {0}]}}", row(&fits)),
        ),
        ("a.csv", format!("text\n{fits}\n{fits}\n\"{fits}\"\n")),
    ] {
        assert_eq!(load(name, bytes).unwrap().report.rows, 3, "{name}");
    }
    let deep = format!(
        "{{\"text\": {}1{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    assert!(error("a.jsonl", deep).contains("recursion limit"));
}

/// A file with one list column, whose rows have this number of elements.
fn lists(
    schema: &str,
    rows: &[usize],
    write: impl Fn(&mut ColumnWriter<'_>, &[i16], &[i16]),
) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = rows
        .iter()
        .flat_map(|&n| (0..n).map(|i| i16::from(i > 0)))
        .collect();
    write(column.untyped(), &vec![1; levels.len()], &levels);
    column.close().unwrap();
    group.close().unwrap();
    file.into_inner().unwrap()
}

fn token_lists(rows: &[usize]) -> Vec<u8> {
    let schema = "message m { repeated int32 input_ids; }";
    lists(
        schema,
        rows,
        |column, definition, repetition| match column {
            ColumnWriter::Int32ColumnWriter(column) => {
                let ids = vec![7; repetition.len()];
                column
                    .write_batch(&ids, Some(definition), Some(repetition))
                    .unwrap();
            }
            _ => panic!("another column"),
        },
    )
}

#[test]
fn lists_of_parquet_know_the_limit() {
    // With 8 bytes per value, 8,192 values fit.
    let fitting = load("a", token_lists(&[8000, 1, 8000, 3])).unwrap();
    let lengths: Vec<usize> = (0..4).map(|i| fitting.sequences.length(i)).collect();
    assert_eq!(lengths, [2048, 1, 2048, 3]);
    for rows in [&[8193][..], &[1, 9000, 1], &[2_000_000]] {
        let file = token_lists(rows);
        assert!(file.len() < 4096, "{}", file.len());
        let shown = error("a", file);
        assert!(shown.contains("`max_row_bytes`"), "{shown}");
    }
    // One long text, stored once and referred to very often.
    let schema = "message m { repeated binary text (UTF8); }";
    let texts = lists(
        schema,
        &[5000],
        |column, definition, repetition| match column {
            ColumnWriter::ByteArrayColumnWriter(column) => {
                let texts =
                    vec![ByteArray::from("a".repeat(60_000).into_bytes()); repetition.len()];
                column
                    .write_batch(&texts, Some(definition), Some(repetition))
                    .unwrap();
            }
            _ => panic!("another column"),
        },
    );
    assert!(texts.len() < 200_000, "{}", texts.len());
    assert!(error("a", texts).contains("`max_row_bytes`"));
}

/// A file of twenty texts on one page, whose header claims this number of bytes.
fn page(codec: Compression, claimed: Option<u32>) -> Vec<u8> {
    let schema = "message m { required binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(1 << 22)
        .set_compression(codec)
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts = vec![ByteArray::from("a".repeat(60_000).into_bytes()); 20];
    match column.untyped() {
        ColumnWriter::ByteArrayColumnWriter(column) => {
            column.write_batch(&texts, None, None).unwrap();
        }
        _ => panic!("another column"),
    }
    column.close().unwrap();
    group.close().unwrap();
    let mut bytes = file.into_inner().unwrap();
    // After the magic number come the type of the page and its size, in four bytes of seven bits.
    assert_eq!(bytes[4..7], [0x15, 0, 0x15]);
    assert!(bytes[9] & 0x80 != 0 && bytes[10] & 0x80 == 0);
    if let Some(claimed) = claimed {
        for (index, byte) in bytes[7..11].iter_mut().enumerate() {
            let more = if index < 3 { 0x80 } else { 0 };
            let bits = (2 * claimed) >> (7 * index);
            *byte = more | (bits & 0x7f) as u8;
        }
    }
    bytes
}

#[test]
fn pages_of_parquet_that_lie_about_their_size_are_refused() {
    for codec in [
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
    ] {
        let rows = load("a.parquet", page(codec, None)).unwrap().report.rows;
        assert_eq!(rows, 20, "{codec:?}");
        let shown = error("a.parquet", page(codec, Some(100_000_000)));
        let words = match codec {
            Compression::BROTLI(_) | Compression::ZSTD(_) => "64 times `data.max_row_bytes`",
            _ => "claims to hold 100000000, which no data of this codec does",
        };
        assert!(shown.contains(words), "{codec:?}: {shown}");
        let shown = error("a.parquet", page(codec, Some(1_100_000)));
        let counted = matches!(codec, Compression::GZIP(_) | Compression::BROTLI(_));
        let words = match counted {
            true => "holds more than the 1100000 bytes that it claims",
            false => "invalid Parquet",
        };
        assert!(shown.contains(words), "{codec:?}: {shown}");
    }
}

#[test]
fn files_of_other_kinds_have_words_of_their_own() {
    let utf16: Vec<u8> = "\u{feff}{}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let html = "\n <!DOCTYPE html>\n<html>";
    for (name, bytes, words) in [
        ("a.jsonl", utf16, "UTF-16"),
        (
            "a.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid".to_vec(),
            "git lfs pull",
        ),
        ("a.jsonl", html.into(), "web page"),
        ("a.jsonl.gz", gzip(html.as_bytes()), "web page"),
        ("a.jsonl", b"PK\x03\x04\x14".to_vec(), "ZIP"),
        ("a.parquet", b"ARROW1\0\0".to_vec(), "Arrow"),
        (
            "a.parquet",
            b"hello".to_vec(),
            "no Parquet file begins like this",
        ),
        ("a.yaml", b"rows:\n  - text: a\n".to_vec(), "YAML"),
        ("a", b"- text: a\n- text: b\n".to_vec(), "YAML"),
        ("a", b"---\ntext: a\n".to_vec(), "YAML"),
        ("a.txt", b"Once upon a time, there was\n".to_vec(), "jq -Rc"),
        ("a.md", b"# A title\n\nText.\n".to_vec(), "is plain text"),
        ("a.txt", b"1234".to_vec(), "is plain text"),
        // Rows in a file with the wrong name are still rows.
        ("a.txt", b"text\n".to_vec(), "no rows"),
        ("a.txt", b"{\"a\": 1}\n".to_vec(), "cannot tell the format"),
        ("a.bin", b"\x01\x00\x02\x00".to_vec(), "is not UTF-8 text"),
        ("a.pkl", b"\x80\x04\x95".to_vec(), "pickle"),
        (
            "a.json",
            br#"{"text": ["a", "b"]}"#.to_vec(),
            "orient=\"records\"",
        ),
        (
            "a.json",
            br#"{"instruction": {"0": "a"}, "output": {"0": "b"}}"#.to_vec(),
            "`instruction`, `output`",
        ),
        (
            "a.json",
            b"{\n\"input_ids\": [\n[1, 2]]}".to_vec(),
            "`input_ids`",
        ),
        (
            "a.json",
            b"{\n \"messages\": [\n {\"role\": \"user\"}]}".to_vec(),
            "`messages`",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"a\"},\n{\"text\": \"b\"},\n".to_vec(),
            "a comma behind the row",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": \"b\",".to_vec(),
            "invalid JSON",
        ),
    ] {
        let shown = error(name, bytes);
        assert!(shown.contains(words), "{name}: {shown}");
        assert_eq!(
            shown.matches("/a").count() - shown.matches("/spec").count(),
            1,
            "{shown}"
        );
    }
    let parquet = token_lists(&[3]);
    assert!(error("a.parquet", &parquet[..parquet.len() - 9]).contains("may be cut off"));
    let rows = "{\"text\": \"a\"}\n".repeat(9000);
    let cut = |bytes: Vec<u8>| error("a.jsonl", &bytes[..bytes.len() - 9]);
    assert!(cut(gzip(rows.as_bytes())).contains("cut off"));
    assert!(cut(zstd::encode_all(rows.as_bytes(), 1).unwrap()).contains("cut off"));
}

#[test]
fn a_folder_names_its_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.jsonl"), "").unwrap();
    std::fs::write(folder.path().join("readme.md"), "").unwrap();
    let paths = [folder.path().to_owned()];
    let loaded = tightrope_data::load(&paths, &DataOptions::default(), None, &());
    let shown = loaded.unwrap_err().to_string();
    assert!(
        shown.ends_with("is a folder; give the files in it: b.jsonl"),
        "{shown}"
    );
}
