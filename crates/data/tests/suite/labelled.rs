//! Answers with a verdict: every layout gives the same sequence and label.

use tightrope_data::{
    DataError, DataOptions, Dataset, ExampleKind, Examples, Format, OnBadRow, Overlong, Tokenizer,
    TrainOn, load,
};

use crate::common::{CHATML, load_bytes, marked, tokenizer, write};

fn read(rows: &str, options: &DataOptions, tokenizer: &Tokenizer) -> Dataset {
    load_bytes("a.jsonl", rows, options, Some(tokenizer)).unwrap_or_else(|e| panic!("{rows}: {e}"))
}

fn refusal(rows: &str, options: &DataOptions, tokenizer: Option<&Tokenizer>) -> String {
    let error = load_bytes("a.jsonl", rows, options, tokenizer).map(drop);
    error.unwrap_err().to_string()
}

#[test]
fn every_layout_is_the_same_answer() {
    let t = tokenizer(Some(CHATML));
    let user = r#"{"role": "user", "content": "Tea?"}"#;
    let no = r#"{"role": "assistant", "content": "No"}"#;
    for row in [
        format!(r#"{{"messages": [{user}, {no}], "label": false}}"#),
        format!(r#"{{"messages": [{user}, {no}], "kto_tag": false}}"#),
        format!(r#"{{"prompt": [{user}], "completion": [{no}], "label": 0}}"#),
        format!(r#"{{"prompt": [{user}], "completion": [{no}], "label": "False"}}"#),
        // A class of the text beside the verdict.
        format!(r#"{{"messages": [{user}, {no}], "label": "tea", "desirable": false}}"#),
        r#"{"instruction": "Tea?", "input": "", "output": "No", "kto_tag": false}"#.to_owned(),
    ] {
        let data = read(&row, &DataOptions::default(), &t);
        assert_eq!(
            (data.kind, &data.desirable[..]),
            (ExampleKind::Labelled, &[false][..])
        );
        let said = "<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant\n⟦No<|im_end|>⟧\n";
        assert_eq!(marked(&data, 0, &t), said, "{row}");
        assert_eq!(data.report.files[0].format, Format::Labelled);
        assert_eq!(data.report.good_answers, Some(0));
    }
    let plain = read(
        r#"{"prompt": "Tea? ", "completion": "Yes", "label": true}"#,
        &DataOptions::default(),
        &t,
    );
    assert_eq!(
        (plain.kind, &plain.desirable[..]),
        (ExampleKind::Labelled, &[true][..])
    );
    // A column of another name.
    let options = DataOptions {
        columns: serde_json::from_str(r#"{"label": "is_good"}"#).unwrap(),
        ..DataOptions::default()
    };
    let row = r#"{"prompt": "Tea? ", "completion": "Yes", "is_good": 0}"#;
    assert_eq!(read(row, &options, &t).desirable, [false]);
    let ids = r#"{"prompt_ids": [5, 6], "completion_ids": [7], "label": true}"#;
    let ids = load_bytes("a.jsonl", ids, &DataOptions::default(), None).unwrap();
    assert_eq!(ids.sequences.get(0).unwrap().tokens(), [5, 6, 7]);
    assert_eq!(ids.sequences.get(0).unwrap().targets(), [-100, 7, -100]);
    let examples = Examples::from(&ids);
    assert_eq!(examples.kind(), ExampleKind::Labelled);
    assert_eq!(examples.desirable(), [true]);
}

#[test]
fn labels_stay_with_their_answers() {
    let row = |ids: usize, label: bool| {
        let answer: Vec<usize> = (10..10 + ids).collect();
        format!("{{\"prompt_ids\": [5], \"completion_ids\": {answer:?}, \"label\": {label}}}\n")
    };
    let rows = [
        row(1, true),
        row(9, false),
        "{\"label\": 3}\n".into(),
        row(2, false),
    ]
    .concat();
    let options = DataOptions {
        max_length: 6,
        overlong: Overlong::Drop,
        on_bad_row: OnBadRow::Skip,
        ..DataOptions::default()
    };
    let data = load_bytes("a.jsonl", &rows, &options, None).unwrap();
    assert_eq!(data.desirable, [true, false]);
    assert_eq!((data.report.dropped_rows, data.report.skipped_rows), (1, 1));
    // The same answer with another verdict is not the same row.
    let twice = [row(1, true), row(1, false)].concat();
    let data = load_bytes("a.jsonl", &twice, &DataOptions::default(), None).unwrap();
    assert_eq!(data.report.duplicate_rows, 0);
}

#[test]
fn what_is_no_verdict_is_named() {
    let t = tokenizer(Some(CHATML));
    let labelled = DataOptions {
        format: Format::Labelled,
        ..DataOptions::default()
    };
    for (row, says) in [
        (
            r#"{"prompt": "q", "completion": "a"}"#,
            "`label` is missing",
        ),
        (
            r#"{"prompt": "q", "completion": "a", "label": 2}"#,
            "`label`: expected true, 1 or good, or false, 0 or bad, got a number",
        ),
        (
            r#"{"prompt": "q", "label": true}"#,
            "`completion` is missing",
        ),
        (
            r#"{"prompt": "q", "completion": "a", "label": true, "kto_tag": false}"#,
            "`label`: contradicts `kto_tag`",
        ),
        (
            r#"{"prompt": "q", "completion": "a", "label": "yes"}"#,
            "`label`: expected true, 1 or good, or false, 0 or bad, got",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "thanks"}], "label": true}"#,
            "`messages`: ends in a turn of the user",
        ),
        (
            r#"{"prompt": "q", "completion": "a", "label": true, "rejected": "b"}"#,
            "`rejected`: one of a pair of answers",
        ),
    ] {
        let shown = refusal(row, &labelled, Some(&t));
        assert!(
            shown.contains("a.jsonl:1:") && shown.contains(says),
            "{row}: {shown}"
        );
    }
    let row = r#"{"prompt": "q", "completion": "a", "label": "Bad"}"#;
    assert_eq!(read(row, &DataOptions::default(), &t).desirable, [false]);
    // A number beside an answer that is no verdict is an ordinary column.
    let row = r#"{"prompt": "q", "completion": "a", "label": 3}"#;
    assert_eq!(
        read(row, &DataOptions::default(), &t).kind,
        ExampleKind::Sequences
    );
    // Other formats do not train bad answers as good ones.
    let chat = DataOptions {
        format: Format::Completion,
        ..DataOptions::default()
    };
    let row = r#"{"prompt": "q", "completion": "a", "label": false}"#;
    let shown = refusal(row, &chat, Some(&t));
    assert!(
        shown.contains("`label`: says whether the answer is a good"),
        "{shown}"
    );
    for (options, key) in [
        (
            DataOptions {
                train_on: TrainOn::All,
                ..DataOptions::default()
            },
            "train_on",
        ),
        (
            DataOptions {
                overlong: Overlong::Split,
                ..DataOptions::default()
            },
            "overlong",
        ),
    ] {
        assert!(refusal(row, &options, Some(&t)).contains(key));
    }
}

#[test]
fn kinds_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    let labelled = file(
        "a.jsonl",
        r#"{"prompt_ids": [5], "completion_ids": [6], "label": true}"#,
    );
    let tokens = file("b.jsonl", r#"{"input_ids": [5, 6]}"#);
    let error = load(
        &[labelled, tokens.clone()],
        &DataOptions::default(),
        None,
        &(),
    )
    .unwrap_err();
    let DataError::MixedKinds { path, kind, before } = error else {
        panic!("{error}");
    };
    assert_eq!(path, tokens);
    assert_eq!(
        (kind, before),
        (ExampleKind::Sequences, ExampleKind::Labelled)
    );
}
