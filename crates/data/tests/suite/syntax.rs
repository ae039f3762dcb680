//! Errors of syntax are called by their names, and none of them takes rows along.

use tightrope_data::{DataError, DataOptions, Format, OnBadRow};

use crate::common::{CHATML, load_bytes, tokenizer};

/// The error for the file's bytes, which need a tokenizer.
fn said(name: &str, bytes: &str) -> String {
    let tokenizer = tokenizer(Some(CHATML));
    let error = load_bytes(name, bytes, &DataOptions::default(), Some(&tokenizer));
    error.unwrap_err().to_string()
}

#[test]
fn what_is_no_json_is_named() {
    let cases = [
        (
            "[{\"text\": \"a b\"}, {\"text\": \"c\"},]",
            "a.json:1:33: invalid JSON: expected a row after the comma, found `]`",
        ),
        (
            "[{\"text\": \"a b\"},\n , {\"text\": \"c\"}]",
            "a.json:2:2: invalid JSON: expected a row after the comma, found `,`",
        ),
        (
            "[,{\"text\": \"a b\"}]",
            "1:2: invalid JSON: expected a row, found `,`",
        ),
        ("[{\"text\": \"a b\"}}]", "expected `,` or `]`, found `}`"),
        (
            "{\"text\": \"a\"\n{\"text\": \"b\"}\n",
            "1:12: invalid JSON: the row ends inside an object",
        ),
        (
            "{\"text\": \"a\n{\"text\": \"b\"}\n",
            "the row ends inside a string",
        ),
        (
            "{\"text\": \n{\"text\": \"b\"}\n",
            "the row ends where a value is expected",
        ),
        ("{\"text\": \"a\"} // it\n", "JSON has no comments"),
        (
            "[{\"text\": \"a\"}, # it\n{\"text\": \"b\"}]",
            "JSON has no comments",
        ),
        ("{text: \"a\"}\n", "keys stand in double quotes"),
    ];
    for (text, expected) in cases {
        let said = said("a.json", text);
        assert!(said.contains(expected), "{text}: {said}");
        assert!(!said.contains("EOF"), "{text}: {said}");
    }
}

#[test]
fn a_comma_too_many_costs_no_row() {
    let text = "[{\"input_ids\": [1, 2]},, {\"input_ids\": [3, 4]}, ]";
    let options = DataOptions {
        on_bad_row: OnBadRow::Skip,
        ..DataOptions::default()
    };
    let data = load_bytes("a.json", text, &options, None).unwrap();
    assert_eq!((data.sequences.len(), data.report.skipped_rows), (2, 2));
}

#[test]
fn a_quote_that_is_never_closed_takes_no_rows_along() {
    let rows = "a\n\"b \"\"c\"\"\"\n\"d\ne\"\n\"\"\"\"\nf\"g\n";
    let tokenizer = tokenizer(Some(CHATML));
    let options = DataOptions {
        format: Format::Text,
        on_bad_row: OnBadRow::Skip,
        ..DataOptions::default()
    };
    let load = |text: &str| load_bytes("a.csv", text, &options, Some(&tokenizer));
    let whole = load(&format!("text\n{rows}")).unwrap();
    assert_eq!(whole.report.rows, 5);
    for (text, line) in [
        (format!("text\n{rows}\"h\ni\nj\n"), 8),
        (format!("text\n{rows}\"h"), 8),
        (format!("\n\ntext\n{rows}\"h \"\"i\"\"\n"), 10),
        ("\"text\na\n".to_owned(), 1),
        ("text,x\n\"a,1\nb,2\n".to_owned(), 2),
    ] {
        let error = load(&text).unwrap_err();
        assert!(matches!(error, DataError::Broken(_)), "{error}");
        let error = error.to_string();
        let expected = format!("a.csv:{line}: invalid CSV: a quote opens a value");
        assert!(error.contains(&expected), "{text}: {error}");
    }
    let small = DataOptions {
        max_row_bytes: 1 << 12,
        ..options.clone()
    };
    let long = format!("text\na\n\"{}\n\"b\"\n", "x\n".repeat(1 << 20));
    let error = load_bytes("a.csv", long, &small, Some(&tokenizer)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("a.csv:3: ") && error.contains("`max_row_bytes`"),
        "{error}"
    );
}

#[test]
fn fields_are_counted_in_the_singular_too() {
    let said = said("a.csv", "prompt,completion\na,b\nc\n");
    assert!(
        said.contains("a.csv:3: invalid CSV: 1 field, but"),
        "{said}"
    );
}

#[test]
fn a_required_null_of_a_message_is_no_missing_key() {
    for (message, expected) in [
        (
            "{\"role\": null, \"content\": \"b\"}",
            "`messages[1].role` is null",
        ),
        (
            "{\"from\": null, \"value\": \"b\"}",
            "`messages[1].from` is null",
        ),
        (
            "{\"from\": \"gpt\", \"value\": null}",
            "`messages[1].value` is null",
        ),
        ("{\"content\": \"b\"}", "`messages[1].role` is missing"),
        ("{\"from\": \"gpt\"}", "`messages[1].value` is missing"),
    ] {
        let user = "{\"role\": \"user\", \"content\": \"a\"}";
        let row = format!("{{\"messages\": [{user}, {message}]}}");
        let said = said("a.jsonl", &row);
        assert!(said.contains(expected), "{said}");
    }
    // A union of layouts has the keys of both.
    let row = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"from\": null, \"value\": null}, \
               {\"role\": null, \"content\": null, \"from\": \"gpt\", \"value\": \"b\"}]}";
    let tokenizer = tokenizer(Some(CHATML));
    let data = load_bytes("a.jsonl", row, &DataOptions::default(), Some(&tokenizer)).unwrap();
    assert_eq!(data.report.trained_answers, 1);
}
