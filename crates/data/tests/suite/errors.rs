//! Every kind of unusable data has an error with its place.

use std::path::PathBuf;

use tightrope_data::{
    BadRow, ChatTemplate, DataError, DataOptions, Format, GgufTokenizer, OnBadRow, RowProblem,
    Tokenizer, load,
};

use crate::common::{CHATML, gguf, load_bytes, tokenizer, write};

fn fails(name: &str, bytes: impl AsRef<[u8]>) -> DataError {
    load_bytes(name, bytes, &DataOptions::default(), None).unwrap_err()
}

fn bad_row(error: DataError) -> BadRow {
    match error {
        DataError::Row(bad) | DataError::Broken(bad) => *bad,
        other => panic!("expected a bad row, got {other}"),
    }
}

/// Line, column and problem of the one row that is bad.
fn problem(bytes: impl AsRef<[u8]>, tokenizer: Option<&Tokenizer>) -> (u64, u64, RowProblem) {
    let error = load_bytes("a.jsonl", bytes, &DataOptions::default(), tokenizer).unwrap_err();
    let shown = error.to_string();
    let bad = bad_row(error);
    assert!(shown.contains("a.jsonl:"), "{shown}");
    (
        bad.place.line.unwrap(),
        bad.place.column.unwrap(),
        bad.problem,
    )
}

#[test]
fn one_is_not_many() {
    let row = r#"{"input_ids": [5, 6], "labels": [-100], "attention_mask": [1, 1]}"#;
    let error = load_bytes("a.jsonl", row, &Default::default(), None).unwrap_err();
    assert!(
        error.to_string().contains("`labels` has 1 value, "),
        "{error}"
    );
    let row = r#"{"input_ids": [5, 6], "labels": [-100, -100]}"#;
    let error = load_bytes("a.jsonl", row, &Default::default(), None).unwrap_err();
    let shown = error.to_string();
    for one in [
        "no token of 1 sequence has",
        "a.jsonl: 1 row, read as tokens",
        "\n1 sequence without",
    ] {
        assert!(shown.contains(one), "{shown}");
    }
}

#[test]
fn files() {
    let none = load(&[], &DataOptions::default(), None, &());
    assert!(matches!(none, Err(DataError::NoFiles)));
    let missing = load(
        &[PathBuf::from("/none/a.jsonl")],
        &DataOptions::default(),
        None,
        &(),
    );
    assert!(matches!(missing, Err(DataError::Io { .. })));
    let zero = DataOptions {
        max_length: 0,
        ..DataOptions::default()
    };
    let zero = load_bytes("a.jsonl", "{\"input_ids\": [1, 2]}", &zero, None);
    assert!(matches!(
        zero,
        Err(DataError::Option {
            key: "max_length",
            ..
        })
    ));
    for empty in ["", "  \n\n "] {
        assert!(matches!(
            fails("a.jsonl", empty),
            DataError::EmptyFile { .. }
        ));
    }
    for no_rows in ["[]", "{\"data\": [ ]}"] {
        assert!(matches!(fails("a.json", no_rows), DataError::NoRows { .. }));
    }
    assert!(matches!(
        fails("a.csv", "prompt,completion\n"),
        DataError::NoRows { .. }
    ));
    assert!(matches!(
        fails("a.gz", b"\x1f\x8b\x08 rubbish"),
        DataError::Io { .. }
    ));
    assert!(matches!(
        fails("a.zst", b"\x28\xb5\x2f\xfd rubbish"),
        DataError::Io { .. }
    ));
    assert!(matches!(
        fails("a.parquet", b"PAR1 rubbish"),
        DataError::Container { .. }
    ));
}

#[test]
fn damaged_parquet_never_panics() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tokens.parquet");
    let whole = std::fs::read(path).unwrap();
    let options = DataOptions {
        format: Format::Tokens,
        ..DataOptions::default()
    };
    for cut in (4..whole.len()).step_by(37) {
        assert!(load_bytes("a", &whole[..cut], &options, None).is_err());
    }
    // A flipped byte must cause neither a panic nor a hang.
    for at in 4..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        let _ = load_bytes("a", &damaged, &options, None);
    }
}

#[test]
fn wrappers_and_unknown_formats() {
    let two = fails("a.json", r#"{"a": [{"text": ""}], "b": []}"#);
    assert!(
        matches!(&two, DataError::Arrays { arrays, .. } if arrays == &["a", "b"]),
        "{two}"
    );
    let none = fails("a.json", "{\n\"a\": 1}");
    assert!(matches!(&none, DataError::Arrays { arrays, .. } if arrays.is_empty()));
    let unknown = fails(
        "a.jsonl",
        "{\"question\": \"\", \"answer\": \"\"}\n{\"x\": 1}",
    );
    assert!(
        unknown.to_string().contains("question, answer, x"),
        "{unknown}"
    );
    assert!(matches!(unknown, DataError::UnknownFormat { .. }));
}

#[test]
fn broken_documents_say_where() {
    let bad = bad_row(fails(
        "a.json",
        "[{\"input_ids\": [1, 2]},\n {\"input_ids\": [3",
    ));
    assert_eq!(
        (bad.place.row, bad.place.line, bad.place.column),
        (2, Some(2), Some(18))
    );
    let bad = bad_row(fails("a.json", "[{\"input_ids\": [1, 2]} {}]"));
    assert_eq!(
        bad.problem,
        RowProblem::Json("expected `,` or `]`, found `{`".to_owned())
    );
    assert_eq!(bad.place.column, Some(24));
    let bad = bad_row(fails("a.json", "[{\"input_ids\": [1, 2]}] x"));
    assert!(matches!(bad.problem, RowProblem::Json(_)));
    let bad = bad_row(fails("a.json", "{\"data\": [{\"input_ids\": [1, 2]}"));
    assert!(matches!(bad.problem, RowProblem::Json(_)));
    let bad = bad_row(fails(
        "a.json",
        "[{\"input_ids\": [1, 2]},\n {\"input_ids\": [3 4]}]",
    ));
    assert_eq!((bad.place.line, bad.place.column), (Some(2), Some(19)));
}

#[test]
fn rows() {
    let good = "{\"input_ids\": [1, 2]}\n";
    let (line, column, found) = problem(format!("{good}{{\"input_ids\": [1,, 2]}}"), None);
    assert_eq!((line, column), (2, 18));
    assert!(matches!(found, RowProblem::Json(_)));
    let (line, column, found) = problem(b"{\"input_ids\": [1], \"x\": \"\xea\xb0\x80\xff\"}", None);
    assert_eq!((line, column, found), (1, 27, RowProblem::Utf8));
    let (_, column, found) = problem(format!("{good}[1]"), None);
    assert_eq!((column, found), (1, RowProblem::NotAnObject("an array")));
    let (_, _, found) = problem(format!("{good}{{\"ids\": [1]}}"), None);
    assert!(
        found
            .to_string()
            .contains("`input_ids` is missing; the keys are ids")
    );
    let (_, column, found) = problem("{\"x\": 1, \"input_ids\": [1, \"2\"]}", None);
    assert_eq!(column, 27);
    assert_eq!(
        found.to_string(),
        "`input_ids[1]`: expected a whole number, got a string"
    );
    let (_, _, found) = problem("{\"input_ids\": [1, -2]}", None);
    assert_eq!(found.to_string(), "`input_ids[1]`: -2 is not a token id");
    let (_, _, found) = problem("{\"input_ids\": [1, 2.5]}", None);
    assert!(matches!(found, RowProblem::Value { .. }));
    let (_, _, found) = problem("{\"input_ids\": [1, 2], \"labels\": [1]}", None);
    assert!(matches!(
        found,
        RowProblem::Lengths {
            got: 1,
            expected: 2,
            ..
        }
    ));
    let (_, _, found) = problem("{\"input_ids\": [1, 2], \"labels\": [1, -5]}", None);
    assert_eq!(
        found.to_string(),
        "`labels[1]`: -5 is not a token id, nor -100 (not trained)"
    );
    let mask = |mask: &str| format!("{{\"input_ids\": [1, 2, 3], \"attention_mask\": {mask}}}");
    assert!(matches!(
        problem(mask("[1, 2, 1]"), None).2,
        RowProblem::Value { .. }
    ));
    assert!(matches!(
        problem(mask("[1, 0, 1]"), None).2,
        RowProblem::Value { .. }
    ));
    let tokenizer = tokenizer(None);
    let (_, _, found) = problem("{\"input_ids\": [1, 100000]}", Some(&tokenizer));
    assert!(matches!(
        found,
        RowProblem::OutsideVocabulary { id: 100_000, .. }
    ));
    let bad = bad_row(
        load_bytes(
            "a.csv",
            "prompt,completion\na,b\nc\n",
            &DataOptions::default(),
            Some(&tokenizer),
        )
        .unwrap_err(),
    );
    assert_eq!(bad.place.line, Some(3));
    assert!(matches!(bad.problem, RowProblem::Csv(_)));
}

#[test]
fn keys_that_occur_twice() {
    let twice = |key: &str| RowProblem::Twice {
        key: key.to_owned(),
    };
    let t = tokenizer(Some(CHATML));
    let good = "{\"text\": \"a\", \"b\": {\"text\": 1}}\n";
    for (row, column, key) in [
        (r#"{"text":"a","text":"b"}"#, 13, "text"),
        (r#"{"text": "a", "text" : "a"}"#, 15, "text"),
        (
            r#"{"text": "é", "x": [{"y": 1}, {"y": 1, "z": 2, "y": null}]}"#,
            48,
            "y",
        ),
        (r#"{"text": "a", "q\"": 1, "q\"": 1}"#, 25, "q\""),
    ] {
        let found = problem(format!("{good}{row}\n"), Some(&t));
        assert_eq!(found, (2, column, twice(key)), "{row}");
        let lines = format!("[{good},\n{row}\n]");
        let error = load_bytes("a.json", lines, &DataOptions::default(), Some(&t));
        let place = bad_row(error.unwrap_err()).place;
        assert_eq!((place.line, place.column), (Some(3), Some(column)), "{row}");
    }
    let message = r#"{"messages":[{"role":"user","role":"assistant","content":"x"}]}"#;
    let (_, column, found) = problem(message, Some(&t));
    assert_eq!((column, found), (29, twice("role")));
}

#[test]
fn null_is_not_called_absent() {
    let t = tokenizer(Some(CHATML));
    for template in [None, Some(CHATML)] {
        let t = tokenizer(template);
        let row = r#"{"instruction": "a", "input": "x", "output": null}"#;
        let good = r#"{"instruction": "a", "input": null, "output": "b"}"#;
        let (line, column, found) = problem(format!("{good}\n{row}"), Some(&t));
        assert_eq!((line, column), (2, 46));
        assert_eq!(found.to_string(), "`output` is null");
        let row = r#"{"instruction": "a", "input": "x"}"#;
        let (_, _, found) = problem(format!("{good}\n{row}"), Some(&t));
        assert_eq!(
            found.to_string(),
            "`output` is missing; the keys are instruction, input"
        );
    }
    for (row, key) in [
        (r#"{"text": null}"#, "text"),
        (r#"{"prompt": "a", "completion": null}"#, "completion"),
        (r#"{"messages": null, "conversations": null}"#, "messages"),
        (r#"{"conversations": null}"#, "conversations"),
        (r#"{"input_ids": null}"#, "input_ids"),
    ] {
        let (_, _, found) = problem(row, Some(&t));
        assert_eq!(found.to_string(), format!("`{key}` is null"));
    }
}

#[test]
fn skipping_every_row_says_why() {
    let options = DataOptions {
        on_bad_row: OnBadRow::Skip,
        ..DataOptions::default()
    };
    for (rows, said) in [
        ("bad\nbad\n", "; all of the first 2 rows are skipped as bad"),
        ("bad\n", "; the file's only row"),
    ] {
        let error = load_bytes("a.jsonl", rows, &options, None).unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.contains("a.jsonl:1:1: invalid JSON: ") && shown.ends_with(said),
            "{shown}"
        );
    }
    let error = load_bytes("a.jsonl", "bad\n{\"q\": 1}\n", &options, None).unwrap_err();
    assert!(matches!(error, DataError::UnknownFormat { .. }), "{error}");
}

#[test]
fn conversations() {
    let tokenizer = tokenizer(Some(CHATML));
    let t = Some(&tokenizer);
    let (_, column, found) = problem("{\"messages\": [{\"role\": \"user\", \"content\": 1}]}", t);
    assert_eq!(column, 43);
    assert!(
        found
            .to_string()
            .starts_with("`messages[0].content`: expected a string")
    );
    let (_, column, found) = problem("{\"messages\": [{\"content\": \"\"}]}", t);
    assert_eq!(column, 15);
    assert!(
        found
            .to_string()
            .starts_with("`messages[0].role` is missing")
    );
    let (_, _, found) = problem("{\"messages\": {}}", t);
    assert!(matches!(found, RowProblem::WrongType { .. }));
    let (_, _, found) = problem(
        "{\"conversations\": [{\"from\": \"alien\", \"value\": \"\"}]}",
        t,
    );
    assert!(matches!(&found, RowProblem::Speaker { speaker, .. } if speaker == "alien"));
    let (_, _, found) = problem("{\"messages\": [], \"tools\": 1}", t);
    assert!(matches!(found, RowProblem::WrongType { .. }));
    let (_, _, found) = problem("{\"prompt\": \"a\", \"completion\": []}", t);
    assert!(matches!(found, RowProblem::WrongType { .. }));
    let chat = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}";
    let refusing = crate::common::tokenizer(Some("{{ raise_exception('no ' ~ messages|length) }}"));
    let (_, _, found) = problem(chat, Some(&refusing));
    assert_eq!(found.to_string(), "chat template: no 2");
    // The assistant's text occurs in two places.
    let echoing = crate::common::tokenizer(Some(
        "{{ messages[-1].content }}{% for m in messages %}{{ m.content }}{% endfor %}",
    ));
    let (_, _, found) = problem(chat, Some(&echoing));
    assert_eq!(found, RowProblem::Turn { turn: 1 });
}

#[test]
fn what_is_needed_but_absent() {
    let options = DataOptions::default();
    let text = load_bytes("a.jsonl", "{\"text\": \"a\"}", &options, None).unwrap_err();
    assert!(matches!(
        text,
        DataError::NeedsTokenizer { format: "text", .. }
    ));
    let chat = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}";
    let untemplated = load_bytes("a.jsonl", chat, &options, Some(&tokenizer(None)));
    assert!(matches!(untemplated, Err(DataError::NeedsTemplate { .. })));
    let untrained = load_bytes("a.jsonl", chat, &options, Some(&tokenizer(Some(CHATML))));
    let Err(DataError::NothingToTrain { report }) = untrained else {
        panic!("a conversation without an answer was trained");
    };
    assert_eq!((report.sequences, report.untrained_sequences), (1, 1));
}

#[test]
fn templates() {
    let broken = ChatTemplate::compile("a\n{% if %}").unwrap_err();
    assert!(
        matches!(broken, DataError::Template { line: 2, .. }),
        "{broken}"
    );
    assert!(matches!(
        ChatTemplate::from_option("/none/template.jinja"),
        Err(DataError::Option {
            key: "chat_template",
            ..
        })
    ));
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        folder.path(),
        "t.jinja",
        "from a file {{ messages|length }}",
    );
    let template = ChatTemplate::from_option(path.to_str().unwrap()).unwrap();
    let rendered = template
        .render(&[], None, false, &Default::default())
        .unwrap();
    assert_eq!(rendered.text, "from a file 0");
    let hidden = ChatTemplate::compile(
        "{% macro m() %}xx{% generation %}a{% endgeneration %}{% endmacro %}{{ m() }}",
    );
    let refused = hidden
        .unwrap()
        .render(&[], None, false, &Default::default());
    assert!(refused.unwrap_err().message.contains("macro"));
    for format in ["%Q!", "%z"] {
        let template = ChatTemplate::compile(&format!("{{{{ strftime_now('{format}') }}}}"));
        let refused = template
            .unwrap()
            .render(&[], None, false, &Default::default());
        assert!(refused.unwrap_err().message.contains("strftime_now"));
    }
}

#[test]
fn gguf_tokenizers() {
    let fails = |change: fn(&mut GgufTokenizer)| {
        let mut gguf = gguf(None);
        change(&mut gguf);
        match Tokenizer::from_gguf(gguf) {
            Err(DataError::Gguf { message }) => message,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    };
    assert!(fails(|g| g.model = "rwkv".to_owned()).contains("`rwkv`"));
    assert!(fails(|g| g.pre = "nonsense".to_owned()).contains("`nonsense`"));
    assert!(fails(|g| g.token_types.truncate(3)).contains("3 token types"));
    assert!(fails(|g| g.eos_id = Some(99_999)).contains("99999"));
    assert!(fails(|g| g.tokens[5] = g.tokens[6].clone()).contains("twice"));
    assert!(fails(|g| g.merges[0] = "he".to_owned()).contains("merge 0"));
    assert!(!fails(|g| g.merges[0] = "zz qq".to_owned()).is_empty());
}

#[test]
fn tokenizer_folders() {
    let folder = tempfile::tempdir().unwrap();
    let fails = || match Tokenizer::from_folder(folder.path()) {
        Err(error) => error,
        Ok(_) => panic!("accepted"),
    };
    assert!(matches!(fails(), DataError::NoTokenizer { .. }));
    write(folder.path(), "tokenizer.json", "{\"version\": ");
    assert!(matches!(fails(), DataError::TokenizerFile { .. }));
    tokenizer(None).save_to_folder(folder.path()).unwrap();
    write(folder.path(), "tokenizer_config.json", "[1");
    assert!(
        matches!(fails(), DataError::TokenizerFile { ref path, .. } if path.ends_with("tokenizer_config.json"))
    );
    write(
        folder.path(),
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "rag", "template": "x"}]}"#,
    );
    assert!(fails().to_string().contains("default"));
    let missing = tokenizer(None).save_to_folder(&folder.path().join("absent"));
    assert!(matches!(missing, Err(DataError::Io { .. })));
}
