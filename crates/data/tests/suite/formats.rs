//! Every kind of file and layout gives the right sequences.

use std::io::Write;
use std::path::Path;

use tightrope_data::{
    AddEndToken, DataError, DataOptions, Dataset, Format, OnBadRow, Overlong, Tokenizer, TrainOn,
    inspect, load,
};

use crate::common::{CHATML, load_bytes, marked, tokenizer, write};

fn default() -> DataOptions {
    DataOptions::default()
}

fn tokens(dataset: &Dataset) -> Vec<Vec<u32>> {
    let sequences = dataset.sequences.iter();
    sequences.map(|s| s.unwrap().tokens().to_vec()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const LINES: &str =
    "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 6, 7]}\n\n{\"input_ids\": [8]}\n";

#[test]
fn tokens_need_no_tokenizer() {
    let dataset = load_bytes("a.jsonl", LINES, &default(), None).unwrap();
    assert_eq!(tokens(&dataset), [vec![5, 6, 7], vec![8]]);
    assert_eq!(dataset.sequences.get(0).unwrap().targets(), [6, 7, -100]);
    assert_eq!(dataset.sequences.origin(1).unwrap().line, Some(3));
    assert_eq!(
        (dataset.report.rows, dataset.report.untrained_sequences),
        (2, 1)
    );
    assert_eq!(
        (dataset.report.tokens, dataset.report.trained_tokens),
        (4, 2)
    );
    let inspected = inspect(&dataset.sequences.get(0).unwrap(), None).unwrap();
    let trained: Vec<bool> = inspected.iter().map(|t| t.trained).collect();
    assert_eq!(trained, [false, true, true]);
}

#[test]
fn json_in_every_wrapping_reads_the_same() {
    let expected = tokens(&load_bytes("a.jsonl", LINES, &default(), None).unwrap());
    let array = r#"[{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8]}]"#;
    let pretty = array.replace("}, {", "},\n  {\n");
    let wrapped =
        format!("{{\"version\": 1, \"info\": {{\"x\": [1]}},\n \"data\": {array}, \"z\": null}}\n");
    let one_line = wrapped.replace('\n', "");
    let bom = [b"\xef\xbb\xbf", LINES.as_bytes()].concat();
    let crlf = LINES.replace('\n', "\r\n");
    let variants: [(&str, Vec<u8>); 9] = [
        ("a.json", array.into()),
        ("no_name", array.into()),
        ("a.json", pretty.into()),
        ("a.json", wrapped.into()),
        ("a.jsonl", one_line.into()),
        ("a.jsonl", bom),
        ("a.jsonl", crlf.into()),
        ("plain.jsonl", gzip(LINES.as_bytes())),
        (
            "plain.jsonl",
            zstd::encode_all(LINES.as_bytes(), 1).unwrap(),
        ),
    ];
    for (name, bytes) in variants {
        let dataset = load_bytes(name, &bytes, &default(), None).unwrap();
        assert_eq!(
            tokens(&dataset),
            expected,
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[test]
fn one_record_on_a_line_is_no_wrapper() {
    let row = r#"{"input_ids": [5, 6]}"#;
    let dataset = load_bytes("a.jsonl", row, &default(), None).unwrap();
    assert_eq!(tokens(&dataset), [[5, 6]]);
}

#[test]
fn padding_is_known_by_the_mask_never_by_id() {
    let rows = r#"{"input_ids": [0, 0, 5, 0, 0], "labels": [-100, -100, 5, 0, -100], "attention_mask": [0, 0, 1, 1, 0]}"#;
    let dataset = load_bytes("a.jsonl", rows, &default(), None).unwrap();
    assert_eq!(tokens(&dataset), [[5, 0]]);
    assert_eq!(dataset.sequences.get(0).unwrap().targets(), [0, -100]);
    // SmolLM2 pads with its EOS, which ends trained texts.
    let tokenizer = tokenizer(None);
    assert_eq!(tokenizer.pad_id(), tokenizer.eos_id());
    let row = r#"{"prompt": "a", "completion": "b"}"#;
    let dataset = load_bytes("a.jsonl", row, &default(), Some(&tokenizer)).unwrap();
    assert_eq!(marked(&dataset, 0, &tokenizer), "a⟦b</s>⟧");
}

fn fixture(name: &str, options: &DataOptions, tokenizer: Option<&Tokenizer>) -> Dataset {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    load(&[folder.join(name)], options, tokenizer, &()).unwrap()
}

#[test]
fn parquet_holds_tokens_and_nested_messages() {
    let dataset = fixture("tokens.parquet", &default(), None);
    assert_eq!(tokens(&dataset), [vec![1, 2, 3], vec![4]]);
    assert_eq!(dataset.report.empty_rows, 1);
    let tokenizer = tokenizer(Some(CHATML));
    let dataset = fixture("messages.parquet", &default(), Some(&tokenizer));
    assert_eq!(dataset.report.files[0].format, Format::Chat);
    assert_eq!(
        marked(&dataset, 0, &tokenizer),
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n"
    );
    assert_eq!(dataset.sequences.origin(2).unwrap().row, 3);
    assert!(marked(&dataset, 2, &tokenizer).ends_with("⟦world<|im_end|>⟧\n"));
}

#[test]
fn csv_and_tab_separated_values() {
    let tokenizer = tokenizer(None);
    let csv = "\nprompt,completion\n\"a, \"\"b\"\"\nc\",d\n1,2\n";
    let tsv = csv.replace("a, ", "a; ").replace(',', "\t");
    let dataset = load_bytes("a.csv", csv, &default(), Some(&tokenizer)).unwrap();
    assert_eq!(marked(&dataset, 0, &tokenizer), "a, \"b\"\nc⟦d</s>⟧");
    assert_eq!(dataset.sequences.origin(0).unwrap().line, Some(3));
    assert_eq!(dataset.sequences.origin(1).unwrap().line, Some(5));
    let dataset = load_bytes("a.tsv", tsv, &default(), Some(&tokenizer)).unwrap();
    assert_eq!(marked(&dataset, 0, &tokenizer), "a; \"b\"\nc⟦d</s>⟧");
    let ids = "input_ids\n\"[1, 2]\"\n";
    let dataset = load_bytes("a.csv", ids, &default(), None).unwrap();
    assert_eq!(tokens(&dataset), [[1, 2]]);
}

#[test]
fn share_gpt_and_message_completions() {
    let tokenizer = tokenizer(Some(CHATML));
    let rows = concat!(
        r#"{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}], "system": "s"}"#,
        "\n",
        r#"{"conversations": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}"#,
    );
    let dataset = load_bytes("a.jsonl", rows, &default(), Some(&tokenizer)).unwrap();
    let hello = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n";
    let system = "<|im_start|>system\ns<|im_end|>\n";
    assert_eq!(marked(&dataset, 0, &tokenizer), format!("{system}{hello}"));
    assert_eq!(marked(&dataset, 1, &tokenizer), hello);
    // Every assistant turn of the completion is trained, none of the prompt.
    let rows = r#"{"prompt": [{"role": "assistant", "content": "0"}, {"role": "user", "content": "1"}], "completion": [{"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}]}"#;
    let dataset = load_bytes("a.jsonl", rows, &default(), Some(&tokenizer)).unwrap();
    let text = marked(&dataset, 0, &tokenizer);
    assert_eq!(text.matches('⟦').count(), 2, "{text}");
    assert!(text.contains("⟦2<|im_end|>⟧") && text.contains("⟦4<|im_end|>⟧"));
}

#[test]
fn special_tokens_around_text_follow_the_tokenizer() {
    let mut gguf = crate::common::gguf(None);
    gguf.add_bos = Some(true);
    gguf.add_eos = Some(true);
    let tokenizer = Tokenizer::from_gguf(gguf).unwrap();
    let load = |row: &str| {
        let dataset = load_bytes("a.jsonl", row, &default(), Some(&tokenizer)).unwrap();
        assert_eq!(dataset.report.doubled_bos, 0);
        marked(&dataset, 0, &tokenizer)
    };
    assert_eq!(load(r#"{"text": "ab"}"#), "<s>⟦ab</s>⟧");
    assert_eq!(load(r#"{"text": "<s>ab</s>"}"#), "<s>⟦ab</s>⟧");
    assert_eq!(
        load(r#"{"prompt": "<s>a", "completion": "b"}"#),
        "<s>a⟦b</s>⟧"
    );
    let row = r#"{"text": "<s><s>ab"}"#;
    let dataset = load_bytes("a.jsonl", row, &default(), Some(&tokenizer)).unwrap();
    assert_eq!(dataset.report.doubled_bos, 1);
}

#[test]
fn texts_and_completions_end_in_the_end_token_once() {
    let off = DataOptions {
        add_end_token: AddEndToken::Never,
        ..default()
    };
    let tokenizer = crate::common::tokenizer(None);
    // The row, the result with the added token, whether it was added, and the result without it.
    for (row, with, added, without) in [
        (r#"{"text": "ab"}"#, "a⟦b</s>⟧", 1, "a⟦b⟧"),
        (r#"{"text": "ab\n"}"#, "a⟦b\n</s>⟧", 1, "a⟦b\n⟧"),
        (r#"{"text": "ab</s>"}"#, "a⟦b</s>⟧", 0, "a⟦b</s>⟧"),
        (
            r#"{"text": "a<|im_end|>\n"}"#,
            "a⟦<|im_end|>\n⟧",
            0,
            "a⟦<|im_end|>\n⟧",
        ),
        (r#"{"text": "</s>ab"}"#, "</s>⟦ab</s>⟧", 1, "</s>⟦ab⟧"),
        (
            r#"{"prompt": "a", "completion": "b"}"#,
            "a⟦b</s>⟧",
            1,
            "a⟦b⟧",
        ),
        (
            r#"{"prompt": "a", "completion": "b</s>\n"}"#,
            "a⟦b</s>\n⟧",
            0,
            "a⟦b</s>\n⟧",
        ),
        (r#"{"input_ids": [97, 98]}"#, "a⟦b⟧", 0, "a⟦b⟧"),
    ] {
        let dataset = load_bytes("a.jsonl", row, &default(), Some(&tokenizer)).unwrap();
        assert_eq!(marked(&dataset, 0, &tokenizer), with, "{row}");
        assert_eq!(dataset.report.added_eos, added, "{row}");
        let dataset = load_bytes("a.jsonl", row, &off, Some(&tokenizer)).unwrap();
        assert_eq!(marked(&dataset, 0, &tokenizer), without, "{row}");
        let lacks =
            u64::from(without.contains('b') && !without.contains("b</") || row.contains("input"));
        let report = dataset.report;
        assert_eq!((report.missing_eos, report.added_eos), (lacks, 0), "{row}");
    }
    // A token that ends turns does not end a text, unless that is requested.
    let ends_turns = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}";
    let chats = crate::common::tokenizer(Some(ends_turns));
    let always = DataOptions {
        add_end_token: AddEndToken::Always,
        ..default()
    };
    for (options, expected, open) in [(default(), "a⟦b⟧", 1), (always, "a⟦b</s>⟧", 0)] {
        let dataset = load_bytes("a.jsonl", r#"{"text": "ab"}"#, &options, Some(&chats)).unwrap();
        assert_eq!(marked(&dataset, 0, &chats), expected);
        assert_eq!(
            (dataset.report.missing_eos, dataset.report.open_texts),
            (open, open)
        );
    }
    let rows = "{\"text\": \"\"}\n{\"text\": \"ab\"}\n";
    let dataset = load_bytes("a.jsonl", rows, &default(), Some(&tokenizer)).unwrap();
    assert_eq!((dataset.report.empty_rows, dataset.sequences.len()), (1, 1));
}

#[test]
fn a_tokenizer_without_an_end_token_is_named() {
    let mut gguf = crate::common::gguf(None);
    gguf.eos_id = None;
    gguf.tokens
        .retain(|token| !token.starts_with('<') || token.len() < 3);
    gguf.token_types.truncate(gguf.tokens.len());
    (gguf.bos_id, gguf.pad_id) = (None, None);
    let tokenizer = Tokenizer::from_gguf(gguf).unwrap();
    let rows = r#"{"text": "ab"}"#;
    let report = load_bytes("a.jsonl", rows, &default(), Some(&tokenizer))
        .unwrap()
        .report;
    assert_eq!((report.missing_eos, report.no_eos), (1, true));
    let shown = report.to_string();
    assert!(shown.contains("the tokenizer names none"), "{shown}");
}

#[test]
fn overlong_sequences() {
    let rows = "{\"input_ids\": [1, 2, 3, 4, 5]}\n{\"input_ids\": [6, 7]}\n";
    let load = |overlong| {
        let options = DataOptions {
            max_length: 2,
            overlong,
            ..default()
        };
        load_bytes("a.jsonl", rows, &options, None)
    };
    let cut = load(Overlong::Truncate).unwrap();
    assert_eq!(tokens(&cut), [[1, 2], [6, 7]]);
    assert_eq!(cut.sequences.get(0).unwrap().targets(), [2, -100]);
    assert_eq!(
        (cut.report.truncated_sequences, cut.report.truncated_tokens),
        (1, 3)
    );
    let split = load(Overlong::Split).unwrap();
    assert_eq!(
        tokens(&split),
        [vec![1, 2], vec![3, 4], vec![5], vec![6, 7]]
    );
    assert_eq!((split.report.split_rows, split.report.tokens), (1, 7));
    assert_eq!(
        (0..4)
            .map(|i| split.sequences.origin(i).unwrap().row)
            .collect::<Vec<_>>(),
        [1, 1, 1, 2]
    );
    let dropped = load(Overlong::Drop).unwrap();
    assert_eq!(tokens(&dropped), [[6, 7]]);
    assert_eq!(
        (dropped.report.dropped_rows, dropped.report.dropped_tokens),
        (1, 5)
    );
    let error = load(Overlong::Error).unwrap_err();
    assert!(
        matches!(error, DataError::Overlong { tokens: 5, max_length: 2, ref place } if place.line == Some(1))
    );
}

#[test]
fn bad_rows_are_skipped_and_counted() {
    let rows = b"{\"input_ids\": [1, 2]}\nnot json\n{\"input_ids\": 3}\n{\"input_ids\": [\"\xff\"]}\n{\"input_ids\": [4, 5";
    let options = DataOptions {
        on_bad_row: OnBadRow::Skip,
        ..default()
    };
    let dataset = load_bytes("a.jsonl", rows, &options, None).unwrap();
    assert_eq!((dataset.report.rows, dataset.report.skipped_rows), (5, 4));
    let places: Vec<_> = dataset
        .report
        .skipped
        .iter()
        .map(|s| (s.line, s.column))
        .collect();
    assert_eq!(
        places,
        [
            (Some(2), Some(2)),
            (Some(3), Some(15)),
            (Some(4), Some(17)),
            (Some(5), Some(19))
        ]
    );
    let shown = dataset.report.to_string();
    assert!(
        shown.contains("4 rows skipped:\n") && shown.contains("a.jsonl:3:15: "),
        "{shown}"
    );
}

#[test]
fn order_and_result_do_not_depend_on_threads_or_chunks() {
    let tokenizer = tokenizer(Some(CHATML));
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..9000)
        .map(|i| {
            format!(
                "{{\"instruction\": \"{i}?\", \"output\": \"{}\"}}\n",
                "x".repeat(i % 7)
            )
        })
        .collect();
    let path = write(folder.path(), "a.jsonl", rows);
    let load_with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            load(
                std::slice::from_ref(&path),
                &default(),
                Some(&tokenizer),
                &(),
            )
        })
        .unwrap()
    };
    let (one, three) = (load_with(1), load_with(3));
    assert_eq!(one.sequences.identity(), three.sequences.identity());
    let origins = |data: &Dataset| -> Vec<_> {
        let all = 0..data.sequences.len();
        all.map(|index| data.sequences.origin(index).unwrap())
            .collect()
    };
    assert_eq!(origins(&one), origins(&three));
    assert_eq!(one.sequences.len(), 9000);
    assert!(marked(&one, 8999, &tokenizer).contains("8999?"));
}

#[test]
fn options_read_as_in_the_documentation() {
    let read: DataOptions = serde_json::from_str(
        r#"{"format": "auto", "max_length": 2048, "overlong": "truncate", "train_on": "completion", "add_end_token": "auto", "on_bad_row": "error"}"#,
    )
    .unwrap();
    assert_eq!(read, default());
    assert_eq!(
        serde_json::from_str::<DataOptions>("{}").unwrap(),
        default()
    );
    assert!(serde_json::from_str::<DataOptions>(r#"{"train": "all"}"#).is_err());
    let all: DataOptions = serde_json::from_str(r#"{"train_on": "all"}"#).unwrap();
    assert_eq!(all.train_on, TrainOn::All);
}
