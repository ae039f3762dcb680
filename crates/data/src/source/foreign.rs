//! Recognises files that hold no readable rows by their first bytes, with advice for each.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// Beginnings of files that are no text.
const BEGINNINGS: [(&[u8], &str); 16] = [
    (
        b"PK\x03\x04",
        "is a ZIP archive (or a spreadsheet); unpack it and give the file in it",
    ),
    (
        b"BZh",
        "is compressed with bzip2; unpack it first (gzip and zstd are read as they are)",
    ),
    (
        b"\xfd7zXZ\0",
        "is compressed with xz; unpack it first (gzip and zstd are read as they are)",
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        "is a 7z archive; unpack it and give the file in it",
    ),
    (
        b"Rar!",
        "is a RAR archive; unpack it and give the file in it",
    ),
    (
        b"ARROW1",
        "is an Arrow file; write Parquet or JSON lines instead",
    ),
    (
        b"\xff\xff\xff\xff",
        "is an Arrow stream, as `datasets` caches it; write Parquet or JSON lines (`to_parquet`, `to_json`) instead",
    ),
    (
        b"FEA1",
        "is a Feather file; write Parquet or JSON lines instead",
    ),
    (
        b"Obj\x01",
        "is an Avro file; write Parquet or JSON lines instead",
    ),
    (
        b"ORC",
        "is an ORC file; write Parquet or JSON lines instead",
    ),
    (
        b"SQLite format 3\0",
        "is a SQLite database; write Parquet or JSON lines instead",
    ),
    (
        b"\x89HDF",
        "is an HDF5 file; write Parquet or JSON lines instead",
    ),
    (
        b"\x93NUMPY",
        "is a NumPy array; write rows with `input_ids` instead",
    ),
    (b"GGUF", "is a model (GGUF), no data"),
    (
        b"%PDF",
        "is a PDF; extract its text into JSON lines with the key `text`",
    ),
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the data itself; run `git lfs pull`, or download the file",
    ),
];

/// Refuses a file by its first bytes.
pub(super) fn refuse(path: &Path, start: &[u8]) -> Result<(), DataError> {
    match words(path, start) {
        None => Ok(()),
        Some(what) => Err(DataError::Foreign {
            path: path.to_owned(),
            what,
        }),
    }
}

fn words(path: &Path, start: &[u8]) -> Option<&'static str> {
    let known = BEGINNINGS
        .iter()
        .find(|(bytes, _)| start.starts_with(bytes));
    if let Some((_, what)) = known {
        return Some(what);
    }
    if start.starts_with(b"\xff\xfe\0\0") || start.starts_with(b"\0\0\xfe\xff") {
        return Some("is UTF-32; write it as UTF-8 (`iconv -f UTF-32 -t UTF-8`)");
    }
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Some("is UTF-16; write it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)");
    }
    if start.starts_with(b"\x80") && start.get(1).is_some_and(|version| *version <= 5) {
        return Some(
            "is a Python pickle, which could run any program; write Parquet or JSON lines instead",
        );
    }
    let text = start
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(start)
        .trim_ascii_start();
    let begins = |word: &str| {
        let beginning = text.get(..word.len());
        beginning.is_some_and(|b| b.eq_ignore_ascii_case(word.as_bytes()))
    };
    if ["<!doctype html", "<html", "<head"].into_iter().any(begins) {
        return Some(
            "is a web page, not the data itself; a download link leads to the file (on the hub: `resolve` instead of `blob`)",
        );
    }
    if begins("<?xml") {
        return Some("is XML; write JSON lines instead");
    }
    let extension = path.extension().map(|e| e.to_ascii_lowercase());
    let named = |names: &[&str]| {
        names
            .iter()
            .any(|n| extension.as_deref() == Some((*n).as_ref()))
    };
    let yaml_list = begins("- ")
        && text
            .split(|&b| b == b'\n')
            .next()
            .is_some_and(|l| l.contains(&b':'));
    if begins("---\n")
        || begins("---\r\n")
        || begins("%YAML")
        || yaml_list
        || named(&["yaml", "yml"])
    {
        let yaml = !begins("{") && !begins("[");
        return yaml.then_some("is YAML; write JSON, JSON lines, CSV or Parquet instead");
    }
    if named(&["parquet"]) && !begins("{") && !begins("[") && !start.is_empty() {
        return Some(
            "is named .parquet, but no Parquet file begins like this; it may be damaged, encrypted or something else",
        );
    }
    if named(&["txt", "text", "md"]) && !begins("{") && !begins("[") && !has_known_column(text) {
        return Some(
            "is plain text, which does not say where a document ends; write JSON lines: `jq -Rc \
             '{text: .}' FILE` makes each line a document, `jq -Rsc '{text: .}' FILE` the whole file one",
        );
    }
    start.contains(&0).then_some(
        "is not UTF-8 text, and of no kind that is known; write JSON, JSON lines, CSV or Parquet instead",
    )
}

/// Whether the first line has column names, as in CSV.
fn has_known_column(text: &[u8]) -> bool {
    const KNOWN: [&[u8]; 8] = [
        b"input_ids",
        b"messages",
        b"conversations",
        b"instruction",
        b"output",
        b"prompt",
        b"completion",
        b"text",
    ];
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut columns = line.split(|byte| b",;\t".contains(byte));
    columns.any(|column| {
        let name = column.trim_ascii();
        let name = name.strip_prefix(b"\"").unwrap_or(name);
        KNOWN.contains(&name.strip_suffix(b"\"").unwrap_or(name))
    })
}

/// Files in a folder written by `save_to_disk`.
const SAVED: [&str; 2] = ["dataset_dict.json", "state.json"];

/// Error about a folder in place of a file: it names files that could be given.
pub(super) fn folder(path: &Path) -> DataError {
    if SAVED.iter().any(|name| path.join(name).is_file()) {
        return DataError::Foreign {
            path: path.to_owned(),
            what: "is a data set as `save_to_disk` writes it; write Parquet or JSON lines (`to_parquet`, `to_json`) instead",
        };
    }
    let mut files = Vec::new();
    for entry in entries(path) {
        match entry.is_dir() {
            true => files.extend(entries(&entry).filter(|inner| inner.is_file())),
            false => files.push(entry),
        }
    }
    let mut files: Vec<String> = files
        .iter()
        .filter_map(|file| Some(file.strip_prefix(path).ok()?.to_string_lossy().into_owned()))
        .filter(|name| {
            let name = name.to_ascii_lowercase();
            [".json", ".jsonl", ".parquet", ".csv", ".tsv", ".gz", ".zst"]
                .iter()
                .any(|ending| name.ends_with(ending))
        })
        .collect();
    files.sort();
    let more = files.len().saturating_sub(5);
    files.truncate(5);
    if more > 0 {
        files.push(format!("and {more} more"));
    }
    DataError::Folder {
        path: path.to_owned(),
        files,
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Explains a missing path if the intention can be guessed from it.
pub(crate) fn absent(path: &Path, source: io::Error) -> DataError {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let what = if source.kind() != io::ErrorKind::NotFound {
        None
    } else if path.to_string_lossy().contains(['*', '?']) {
        Some("is a pattern, and those are not expanded in a configuration; name each file")
    } else if !name.contains('.') {
        Some(
            "does not exist; a data set of the hub has to be downloaded first (`hf download --repo-type dataset`)",
        )
    } else {
        None
    };
    match what {
        Some(what) => DataError::Foreign {
            path: path.to_owned(),
            what,
        },
        None => DataError::io(path)(source),
    }
}
