//! Files as users have them: one row, other separators, folders, Python's notation of values.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tightrope_data::{DataError, DataOptions, load};

use crate::common::{CHATML, load_bytes, tokenizer, write};

fn error(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let t = tokenizer(Some(CHATML));
    let loaded = load_bytes(name, bytes, &DataOptions::default(), Some(&t));
    loaded.unwrap_err().to_string()
}

fn missing(path: &Path) -> String {
    let paths = [path.to_owned()];
    let loaded = load(&paths, &DataOptions::default(), None, &());
    loaded.unwrap_err().to_string()
}

#[test]
fn one_row_alone_is_no_document() {
    // Messages are not rows, and neither are other lists in a row.
    let row = r#"{"dialogue": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
    let shown = error("a.jsonl", row);
    assert!(
        shown.contains("the first rows have the keys dialogue"),
        "{shown}"
    );
    for row in [
        r#"{"query": "q", "response": "a", "history": []}"#,
        r#"{"query": "q", "response": ["a", "b"]}"#,
    ] {
        let shown = error("a.jsonl", row);
        assert!(shown.contains("keys query, response"), "{shown}");
    }
    let document = r#"{"version": "1", "data": [{"query": "q"}]}"#;
    let shown = error("a.jsonl", document);
    assert!(
        shown.contains("the first rows have the keys query"),
        "{shown}"
    );
}

#[test]
fn semicolons_separate_as_well() {
    let t = tokenizer(Some(CHATML));
    let csv = "instruction;input;output\n\"a; b\";;c, d\n";
    let dataset = load_bytes("a.csv", csv, &DataOptions::default(), Some(&t)).unwrap();
    let commas = "instruction,input,output\na; b,,\"c, d\"\n";
    let same = load_bytes("a.csv", commas, &DataOptions::default(), Some(&t)).unwrap();
    assert_eq!(dataset.sequences.identity(), same.sequences.identity());
}

#[test]
fn lines_of_csv_are_counted_alike_for_both_ends() {
    let t = tokenizer(Some(CHATML));
    for end in ["\n", "\r\n"] {
        let rows = ["\"text\"", "ab", "\"c\nd\"", "ef", "g,h"].join(end);
        let rows = rows.rsplit_once(end).unwrap();
        let dataset = load_bytes("a.csv", rows.0, &DataOptions::default(), Some(&t)).unwrap();
        let line = |index| dataset.sequences.origin(index).unwrap().line.unwrap();
        let lines: Vec<_> = (0..dataset.sequences.len()).map(line).collect();
        assert_eq!(lines, [2, 3, 5], "{end:?}");
        let shown = error("a.csv", [rows.0, rows.1].join(end));
        assert!(shown.contains("a.csv:6: invalid CSV: 2 fields"), "{shown}");
    }
}

#[test]
fn a_column_without_a_name_is_named() {
    let t = tokenizer(Some(CHATML));
    let csv = ",text\n0,ab\n";
    let dataset = load_bytes("a.csv", csv, &DataOptions::default(), Some(&t)).unwrap();
    assert_eq!(
        dataset.report.unused_keys().unwrap(),
        "a column without a name (1 row)"
    );
}

#[test]
fn folders_tell_what_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    write(folder.path(), "data/train-0.parquet", "PAR1");
    write(folder.path(), "README.md", "");
    let shown = missing(folder.path());
    assert!(
        shown.ends_with("is a folder; give the files in it: data/train-0.parquet"),
        "{shown}"
    );
    write(folder.path(), "state.json", "{}");
    let shown = missing(folder.path());
    assert!(
        shown.contains("this is a data set as `save_to_disk` writes it"),
        "{shown}"
    );
}

#[test]
fn what_is_not_there_may_be_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |name: &str| missing(&folder.path().join(name));
    assert!(shown("*.jsonl").contains("this is a pattern"));
    assert!(shown("owner/name").contains("has to be downloaded first"));
    assert!(shown("a.jsonl").contains("a.jsonl: cannot be read"));
}

#[test]
fn carriage_returns_alone_end_lines() {
    let long = "x".repeat(2000);
    for (name, text) in [
        (
            "a.jsonl",
            format!("{{\"text\": \"{long}\"}}\r{{\"text\": \"cd\"}}\r"),
        ),
        (
            "a.json",
            format!("[\r{{\"text\": \"{long}\"}},\r{{\"text\": \"cd\"}}\r]"),
        ),
        ("a.csv", format!("text,id\r{long},1\rcd,2\r")),
    ] {
        let dataset = load_bytes(name, &text, &Default::default(), Some(&tokenizer(None))).unwrap();
        assert_eq!(dataset.report.rows, 2, "{name}");
        assert_eq!(dataset.sequences.length(1), 3, "{name}");
    }
    let second = "{\"text\": \"ab\"}\r{\"text\": 1}\r";
    let shown = error("a.jsonl", second);
    assert!(shown.contains("a.jsonl:2:10"), "{shown}");
}

#[test]
fn pythons_values_are_no_json() {
    for (row, said) in [
        (
            r#"{"text": "ab", "score": NaN}"#,
            "a.jsonl:1:25: invalid JSON: expected value; NaN and Infinity are no JSON",
        ),
        (
            r#"{"text": "ab", "score": -Infinity}"#,
            "NaN and Infinity are no JSON",
        ),
        (r#"{'text': 'ab'}"#, "texts stand in double quotes"),
        (r#"{"text": 'ab'}"#, "texts stand in double quotes"),
        (r#"{"text": "ab", "good": True}"#, "write null, true, false"),
    ] {
        let shown = error("a.jsonl", row);
        assert!(shown.contains(said), "{shown}");
    }
    let python = "messages\n\"[{'role': 'user', 'content': 'q'}]\"\n";
    let shown = error("a.csv", python);
    assert!(
        shown.contains("`messages`: expected an array, or its JSON, got a string"),
        "{shown}"
    );
}

#[test]
fn other_kinds_of_files_are_named() {
    let utf32: Vec<u8> = "\u{feff}{\"text\": \"ab\"}"
        .chars()
        .flat_map(|c| (c as u32).to_le_bytes())
        .collect();
    assert!(error("a.jsonl", utf32).contains("this is UTF-32"));
    let utf16: Vec<u8> = "\u{feff}{\"text\": \"ab\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(error("a.jsonl", utf16).contains("this is UTF-16"));
    let described = "{\n  \"alpaca\": {\n    \"file_name\": \"alpaca.json\"\n  }\n}\n";
    assert!(error("dataset_info.json", described).contains("give the files that it names"));
    let loaded = load_bytes("a.json", described, &DataOptions::default(), None);
    assert!(matches!(loaded, Err(DataError::Arrays { .. })));
}

#[test]
fn columns_of_the_same_name_are_refused() {
    let shown = error("a.csv", "text,id,text\nab,1,cd\n");
    assert!(
        shown.ends_with(
            "a.csv: columns 1 and 3 are both named `text`; rename one of them, or remove it"
        ),
        "{shown}"
    );
    // Spreadsheets write empty columns at the end.
    let t = tokenizer(Some(CHATML));
    let dataset = load_bytes("a.csv", "text,,\nab,,\n", &DataOptions::default(), Some(&t));
    assert_eq!(dataset.unwrap().report.rows, 1);
}

#[test]
fn bytes_behind_gzip_are_not_called_a_cut() {
    let packed = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let (one, two) = (
        packed("{\"text\": \"ab\"}\n"),
        packed("{\"text\": \"cd\"}\n"),
    );
    let t = tokenizer(None);
    let rows = |bytes: Vec<u8>| {
        let loaded = load_bytes("a.jsonl.gz", bytes, &DataOptions::default(), Some(&t));
        loaded
            .map(|dataset| dataset.report.rows)
            .map_err(|e| e.to_string())
    };
    assert_eq!(rows([&one[..], &two].concat()), Ok(2));
    assert_eq!(rows([&one[..], &[0; 700]].concat()), Ok(1));
    for behind in [&b"garbage"[..], b"g", b"\0\0garbage that is longer", b"{}"] {
        let shown = rows([&one[..], behind].concat()).unwrap_err();
        assert!(
            shown.contains("a.jsonl.gz: bytes follow the end of the gzip data"),
            "{shown}"
        );
    }
    for cut in [one.len() - 1, one.len() - 9, 11] {
        let shown = rows(one[..cut].to_vec()).unwrap_err();
        assert!(shown.contains("the file is cut off"), "{cut}: {shown}");
    }
    let shown = rows([&one[..], &two[..12]].concat()).unwrap_err();
    assert!(shown.contains("the file is cut off"), "{shown}");
}

#[test]
fn bytes_behind_zstd_are_named_and_frames_to_skip_are_skipped() {
    let packed = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let one = packed("{\"text\": \"ab\"}\n");
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    let t = tokenizer(None);
    let rows = |bytes: Vec<u8>| {
        let loaded = load_bytes("a.jsonl.zst", bytes, &DataOptions::default(), Some(&t));
        loaded
            .map(|dataset| dataset.report.rows)
            .map_err(|e| e.to_string())
    };
    assert_eq!(rows([&one[..], &one].concat()), Ok(2));
    assert_eq!(rows([skipped, &one[..], skipped].concat()), Ok(1));
    for behind in [&b"garbage"[..], b"garbage that is longer", &[0; 64]] {
        let shown = rows([&one[..], behind].concat()).unwrap_err();
        assert!(
            shown.contains("a.jsonl.zst: bytes follow the end of the zstd data"),
            "{shown}"
        );
    }
}
