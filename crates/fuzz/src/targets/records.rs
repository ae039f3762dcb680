//! Turns records into sequences: JSON, JSON lines, CSV and Parquet, also compressed.

use crate::{Outcome, Target, folder};
use std::{io::Write, sync::LazyLock};
use tightrope_data::{DataOptions, GgufTokenizer, OnBadRow, Tokenizer, TrainOn, load};

const WORDS: &[&str] = &[
    "messages",
    "role",
    "content",
    "user",
    "assistant",
    "system",
    "tool",
    "conversations",
    "from",
    "value",
    "human",
    "gpt",
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "text",
    "input_ids",
    "labels",
    "attention_mask",
    "tools",
    "tool_calls",
    "function",
    "arguments",
    "history",
    "chosen",
    "rejected",
    "weight",
    "null",
    "-100",
    "type",
    "image",
    "chat_template_kwargs",
    "position_ids",
    "completion_mask",
    "assistant_masks",
    "seq_lengths",
    "\\ud800",
    "1e999",
];

pub(super) const JSON: Target = Target {
    name: "json",
    run: |bytes| records("rows.json", bytes),
    seeds: || {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zipped = gzip
            .write_all(b"{\"text\": \"ab\"}\n")
            .and_then(|()| gzip.finish());
        let mut seeds: Vec<Vec<u8>> = [
            r#"{"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "attention_mask": [1, 1, 1]}"#,
            "{\"text\": \"ab cd\"}\n\n{\"text\": \"\\u00e9\\n\"}\n",
            r#"[{"instruction": "a", "input": "b", "output": "c"}, {"instruction": "", "output": "d"}]"#,
            r#"{"version": 1, "data": [{"prompt": "a", "completion": "b"}], "z": null}"#,
            r#"{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}"#,
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[]"}"#,
        ]
        .map(Into::into)
        .into();
        seeds.extend(zipped);
        seeds
    },
    words: WORDS,
};

pub(super) const CSV: Target = Target {
    name: "csv",
    run: |bytes| records("rows.csv", bytes),
    seeds: || {
        [
            "text\nab\n\"c\"\"d\"\n",
            "prompt,completion\r\na,\"b\nc\"\r\n",
            "instruction,input,output\na,b,c\n",
        ]
        .map(Into::into)
        .into()
    },
    words: WORDS,
};

pub(super) const PARQUET: Target = Target {
    name: "parquet",
    run: |bytes| records("rows.parquet", bytes),
    seeds: || {
        vec![
            include_bytes!("../../../data/tests/data/messages.parquet").into(),
            include_bytes!("../../../data/tests/data/tokens.parquet").into(),
        ]
    },
    words: &["PAR1", "list", "element", "input_ids", "text"],
};

/// Every letter that is used above, a space and a line break are tokens.
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut tokens: Vec<String> = ('!'..='~').map(String::from).collect();
    tokens.extend(["Ġ", "Ċ", "</s>"].map(String::from));
    let end = tokens.len() as u32 - 1;
    Tokenizer::from_gguf(GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: "smollm".to_owned(),
        token_types: (0..=end).map(|id| if id == end { 3 } else { 1 }).collect(),
        tokens,
        eos_id: Some(end),
        chat_templates: vec![(
            "default".to_owned(),
            include_str!("../../../data/tests/data/templates/chatml_generation.jinja").to_owned(),
        )],
        ..GgufTokenizer::default()
    })
    .expect("a tokenizer of single letters")
});

fn records(name: &str, bytes: &[u8]) -> Outcome {
    let (_folder, path) = folder(&[(name, bytes)])?;
    let mut options = DataOptions {
        max_length: 256,
        train_on: TrainOn::Assistant,
        ..DataOptions::default()
    };
    let files = [path.join(name)];
    let strict = load(&files, &options, Some(&TOKENIZER), &()).map(drop);
    if strict.is_err() {
        options.on_bad_row = OnBadRow::Skip;
        let _ = load(&files, &options, Some(&TOKENIZER), &());
    }
    Ok(strict?)
}
