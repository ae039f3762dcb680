//! Columns under other names: every format reads them as it reads its own, and errors name the
//! columns of the file.

use std::collections::BTreeMap;

use tightrope_data::{Columns, DataOptions, Format, OnBadRow, Tokenizer};

use crate::common::{CHATML, load_bytes, marked, tokenizer};

fn columns(pairs: &[(&str, &str)]) -> Columns {
    let pairs = pairs
        .iter()
        .map(|(key, column)| (key.to_string(), column.to_string()));
    Columns::try_from(pairs.collect::<BTreeMap<_, _>>()).unwrap()
}

fn options(pairs: &[(&str, &str)]) -> DataOptions {
    DataOptions {
        columns: columns(pairs),
        ..DataOptions::default()
    }
}

/// Sequences with marks, and the keys that were not used.
fn read(
    name: &str,
    text: &str,
    options: &DataOptions,
    t: &Tokenizer,
) -> (Vec<String>, Vec<String>) {
    let data = load_bytes(name, text, options, Some(t)).unwrap_or_else(|e| panic!("{text}: {e}"));
    let unused = data.report.unused.iter().map(|unused| unused.key.clone());
    let shown = (0..data.sequences.len()).map(|index| marked(&data, index, t));
    (shown.collect(), unused.collect())
}

fn refusal(text: &str, options: &DataOptions) -> String {
    let t = tokenizer(Some(CHATML));
    load_bytes("a.jsonl", text, options, Some(&t))
        .map(drop)
        .unwrap_err()
        .to_string()
}

#[test]
fn every_format_reads_columns_as_its_own_keys() {
    let t = tokenizer(Some(CHATML));
    for (own, other, pairs) in [
        (
            r#"{"text": "ab"}"#,
            r#"{"body": "ab"}"#,
            &[("text", "body")][..],
        ),
        (
            r#"{"prompt": "a", "completion": "b"}"#,
            r#"{"question": "a", "answer": "b"}"#,
            &[("prompt", "question"), ("completion", "answer")],
        ),
        // Two names that change places.
        (
            r#"{"prompt": "a", "completion": "b"}"#,
            r#"{"completion": "a", "prompt": "b"}"#,
            &[("prompt", "completion"), ("completion", "prompt")],
        ),
        (
            r#"{"instruction": "a", "input": "x", "output": "b", "system": "s"}"#,
            r#"{"task": "a", "context": "x", "response": "b", "persona": "s"}"#,
            &[
                ("instruction", "task"),
                ("input", "context"),
                ("output", "response"),
                ("system", "persona"),
            ],
        ),
        (
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
            r#"{"dialog": [{"speaker": "user", "said": "a"}, {"speaker": "assistant", "said": "b"}]}"#,
            &[
                ("messages", "dialog"),
                ("role", "speaker"),
                ("content", "said"),
            ],
        ),
        (
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            r#"{"turns": [{"who": "human", "value": "a"}, {"who": "gpt", "value": "b"}]}"#,
            &[("conversations", "turns"), ("from", "who")],
        ),
        (
            r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
            r#"{"q": "a", "good": "b", "bad": "c"}"#,
            &[("prompt", "q"), ("chosen", "good"), ("rejected", "bad")],
        ),
        (
            r#"{"messages": [{"role": "user", "content": "a"}], "chosen": {"role": "assistant", "content": "b"}, "rejected": {"role": "assistant", "content": "c"}}"#,
            r#"{"messages": [{"who": "user", "content": "a"}], "good": {"who": "assistant", "content": "b"}, "rejected": {"who": "assistant", "content": "c"}}"#,
            &[("chosen", "good"), ("role", "who")],
        ),
        (
            r#"{"prompt": "a", "completion": "b", "label": false}"#,
            r#"{"q": "a", "a": "b", "good": false}"#,
            &[("prompt", "q"), ("completion", "a"), ("label", "good")],
        ),
        (
            r#"{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}"#,
            r#"{"ids": [5, 6, 7], "targets": [-100, 6, 7]}"#,
            &[("input_ids", "ids"), ("labels", "targets")],
        ),
    ] {
        let expected = read("a.jsonl", own, &DataOptions::default(), &t);
        assert_eq!(
            read("a.jsonl", other, &options(pairs), &t),
            expected,
            "{other}"
        );
    }
    let csv = "frage,antwort\na,b\n";
    let pairs = options(&[("prompt", "frage"), ("completion", "antwort")]);
    assert_eq!(read("a.csv", csv, &pairs, &t).0.len(), 1);
    // Messages as JSON in a cell.
    let csv = "dialog\n\"[{\"\"who\"\": \"\"user\"\", \"\"content\"\": \"\"a\"\"}, \
               {\"\"who\"\": \"\"assistant\"\", \"\"content\"\": \"\"b\"\"}]\"\n";
    let pairs = options(&[("messages", "dialog"), ("role", "who")]);
    assert!(read("a.csv", csv, &pairs, &t).0[0].contains("⟦b"));
}

#[test]
fn what_is_not_read_is_called_by_the_name_in_the_file() {
    let t = tokenizer(Some(CHATML));
    // The file's own `prompt` is another column, and is not read; `tools` are no part of texts.
    let row = r#"{"question": "a", "prompt": "other", "answer": "b", "id": 3}"#;
    let pairs = options(&[("prompt", "question"), ("completion", "answer")]);
    assert_eq!(read("a.jsonl", row, &pairs, &t).1, ["id", "prompt"]);
    let row = r#"{"body": "a", "q": "b"}"#;
    let pairs = options(&[("text", "body"), ("prompt", "q")]);
    assert_eq!(read("a.jsonl", row, &pairs, &t).1, ["q"]);
    let row = r#"{"dialog": [{"who": "user", "content": "a", "role": "x", "mood": "y"}, {"who": "assistant", "content": "b"}]}"#;
    let pairs = options(&[("messages", "dialog"), ("role", "who")]);
    assert_eq!(
        read("a.jsonl", row, &pairs, &t).1,
        ["dialog[].mood", "dialog[].role"]
    );
}

#[test]
fn errors_name_and_place_the_column() {
    let pairs = options(&[("prompt", "question"), ("completion", "answer")]);
    let shown = refusal("{\"question\": \"a\", \"answer\": 3}", &pairs);
    assert!(
        shown.contains("a.jsonl:1:29: `answer`: expected"),
        "{shown}"
    );
    let rows = "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"a\", \"other\": 1}";
    let shown = refusal(rows, &pairs);
    assert!(
        shown.contains(":2:1: `answer` is missing; the keys are question, other"),
        "{shown}"
    );
    let pairs = options(&[("messages", "dialog"), ("role", "who"), ("content", "said")]);
    let row = r#"{"dialog": [{"who": "user", "said": "a"}, {"who": 3, "said": "b"}]}"#;
    let shown = refusal(row, &pairs);
    assert!(
        shown.contains("a.jsonl:1:51: `dialog[1].who`: expected a string"),
        "{shown}"
    );
    let row = r#"{"dialog": [{"who": "user", "said": "a"}, {"said": "b"}]}"#;
    let shown = refusal(row, &pairs);
    assert!(
        shown.contains("`dialog[1].who` is missing; the keys are said"),
        "{shown}"
    );
}

#[test]
fn a_column_in_no_row_is_an_error_and_in_some_rows_is_not() {
    let absent = options(&[("prompt", "question")]);
    let shown = refusal(r#"{"prompt": "a", "completion": "b"}"#, &absent);
    let says = "a.jsonl: no row has the column `question`, from which `columns` reads `prompt`; the \
                columns are prompt, completion";
    assert!(shown.contains(says), "{shown}");
    // Also where the format is given, and where bad rows are skipped.
    let skip = DataOptions {
        format: Format::Chat,
        on_bad_row: OnBadRow::Skip,
        ..options(&[("role", "who")])
    };
    let row = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
    let shown = refusal(row, &skip);
    assert!(
        shown.contains("`who`, from which `columns` reads `role`"),
        "{shown}"
    );
    assert!(shown.contains("messages[].role"), "{shown}");
    let t = tokenizer(Some(CHATML));
    let chat = |more: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "a"}}, {{"role": "assistant", "content": "b"}}]{more}}}"#
        )
    };
    let rows = format!("{}\n{}", chat(""), chat(r#", "persona": "s""#));
    let pairs = options(&[("system", "persona")]);
    let (shown, unused) = read("a.jsonl", &rows, &pairs, &t);
    assert!(shown[1].contains("system\ns"), "{shown:?}");
    assert!(unused.is_empty());
}

#[test]
fn only_keys_that_readers_know_can_have_columns() {
    for (pairs, says) in [
        (
            &[("question", "prompt")][..],
            "`question` is no key of a record; the keys of records are text, prompt,",
        ),
        (&[("prompt", "")], "the column of `prompt` has no name"),
        (
            &[("completion", "a"), ("prompt", "a")],
            "`completion` and `prompt` are both to be read from `a`",
        ),
    ] {
        let pairs = pairs
            .iter()
            .map(|(key, column)| (key.to_string(), column.to_string()));
        let error = Columns::try_from(pairs.collect::<BTreeMap<_, _>>()).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    // A column of rows and a key of messages may have the same name.
    columns(&[("system", "a"), ("content", "a")]);
    assert!(serde_json::from_str::<DataOptions>(r#"{"columns": {"x": "y"}}"#).is_err());
}
