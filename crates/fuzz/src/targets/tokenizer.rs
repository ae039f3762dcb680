//! Tokenizers in a folder: `tokenizer.json` and `tokenizer_config.json`, then some texts.

use crate::{BOUNDARY, Target, files, folder};
use serde_json::{Value, json};
use tightrope_data::Tokenizer;

pub(super) const TOKENIZER: Target = Target {
    name: "tokenizer",
    run: |bytes| {
        let [tokenizer, config] = files(bytes);
        let config = if config.is_empty() { b"{}" } else { config };
        let (_folder, path) = folder(&[
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", config),
        ])?;
        let tokenizer = Tokenizer::from_folder(&path)?;
        for text in [
            "",
            "a",
            "Hello, world 123!\n\n  \t",
            "<s>ab cd</s>",
            "é\u{301}한🙂\u{0}",
        ] {
            let tokens = tokenizer.encode_with_offsets(text)?;
            assert!(
                tokens
                    .iter()
                    .all(|token| text.get(token.bytes.clone()).is_some())
            );
            let ids = tokenizer.encode(text, true)?;
            tokenizer.decode(&ids, false)?;
            let mut stream = tokenizer.decode_stream();
            for id in ids {
                stream.step(id)?;
            }
        }
        Ok(())
    },
    seeds: || {
        let special = json!({
            "id": 9, "content": "<s>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        });
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        let word_pieces = json!({
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2, "hello": 3},
        });
        let bert = json!({
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        });
        let around = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [9], "tokens": ["<s>"]}},
        });
        let pairs = json!({
            "type": "BPE", "dropout": null, "unk_token": "u", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"u": 0, "a": 1, "b": 2, "ab": 3, "H": 4, "Ġ": 5}, "merges": [["a", "b"]],
        });
        let unigram = json!({
            "type": "Unigram", "unk_id": 0, "byte_fallback": false,
            "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0], ["▁a", -2.5]],
        });
        let metaspace = json!({
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true,
        });
        let split = json!({
            "type": "Split", "pattern": {"Regex": r"\p{N}{1,3}| ?[^\s\p{L}]+|\s+(?!\S)"},
            "behavior": "Isolated", "invert": false,
        });
        let sequence = json!({"type": "Sequence", "pretokenizers": [split, byte_level]});
        vec![
            seed(
                &special,
                &Value::Null,
                &sequence,
                &around,
                &byte_level,
                &pairs,
            ),
            seed(
                &special,
                &bert,
                &json!({"type": "BertPreTokenizer"}),
                &Value::Null,
                &json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
                &word_pieces,
            ),
            seed(
                &special,
                &json!({"type": "NFKC"}),
                &metaspace,
                &Value::Null,
                &metaspace,
                &unigram,
            ),
        ]
    },
    words: &[
        "Replace",
        "Prepend",
        "Strip",
        "Lowercase",
        "Precompiled",
        "Digits",
        "Whitespace",
        "Punctuation",
        "CharDelimiterSplit",
        "UnicodeScripts",
        "FixedLength",
        "RobertaProcessing",
        "BertProcessing",
        "ByteFallback",
        "Fuse",
        "CTC",
        "BPEDecoder",
        "WordLevel",
        "Removed",
        "MergedWithPrevious",
        "Contiguous",
        "truncation",
        "padding",
        "normalizers",
        "decoders",
        "processors",
        "add_bos_token",
        "add_eos_token",
        "bos_token",
        "eos_token",
        "pad_token",
        "chat_template",
        "content",
        "added_tokens_decoder",
        "dropout",
        "invert",
        "max_length",
        "stride",
        "pad_to_multiple_of",
    ],
};

fn seed(
    special: &Value,
    normalizer: &Value,
    pre_tokenizer: &Value,
    post_processor: &Value,
    decoder: &Value,
    model: &Value,
) -> Vec<u8> {
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
        "decoder": decoder, "model": model,
    });
    let config = json!({
        "bos_token": "<s>", "eos_token": {"content": "<s>"}, "add_bos_token": true,
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    });
    let (tokenizer, config) = (tokenizer.to_string(), config.to_string());
    [tokenizer.as_bytes(), BOUNDARY, config.as_bytes()].concat()
}
