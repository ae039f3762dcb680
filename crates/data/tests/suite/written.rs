//! Tokenizers as GGUF files hold them: what is written is read as the same tokenizer, and what cannot
//! be written is refused.

use serde_json::json;
use tightrope_data::{GgufTokenizer, Tokenizer};

use crate::common::{CHATML, gguf, tokenizer, write};

/// The tokenizer without a name of its way to split text, as a folder holds it.
fn of_folder(tokenizer: &Tokenizer) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save_to_folder(folder.path()).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

#[test]
fn what_is_written_is_what_was_read() {
    let original = gguf(Some(CHATML));
    let tokens = original.tokens.len();
    let written = tokenizer(Some(CHATML)).to_gguf(tokens + 2, None).unwrap();
    assert_eq!(written.tokens[..tokens], original.tokens);
    assert_eq!(written.token_types[..tokens], original.token_types);
    assert_eq!(written.tokens[tokens..], ["[PAD269]", "[PAD270]"]);
    assert_eq!(written.token_types[tokens..], [5, 5]);
    assert_eq!(
        (&written.merges, &written.pre),
        (&original.merges, &original.pre)
    );
    assert_eq!(
        (written.bos_id, written.eos_id),
        (original.bos_id, original.eos_id)
    );
    assert_eq!(
        (written.add_bos, written.add_eos),
        (Some(false), Some(false))
    );
    assert_eq!(written.chat_templates, original.chat_templates);
    // The other ends have names that every reader knows.
    assert_eq!(written.end_ids, Vec::<u32>::new());
    assert!(written.scores.is_empty());
    let small = tokenizer(None).to_gguf(5, None).unwrap_err().to_string();
    assert!(small.contains("has no row"), "{small}");
}

#[test]
fn an_unknown_way_to_split_needs_a_name_that_splits_alike() {
    let mut digits = gguf(None);
    // Apart in `smollm`, which splits all digits, and one token elsewhere.
    digits.tokens.push("33".into());
    digits.token_types.push(1);
    digits.merges.push("3 3".into());
    let rows = digits.tokens.len();
    let own = of_folder(&Tokenizer::from_gguf(digits).unwrap());
    let unknown = own.to_gguf(rows, None).unwrap_err().to_string();
    let hash = own.pre_hash().unwrap();
    assert!(hash.len() == 64 && unknown.contains(&hash), "{unknown}");
    assert_eq!(own.to_gguf(rows, Some("smollm")).unwrap().pre, "smollm");
    let other = own.to_gguf(rows, Some("gpt-2")).unwrap_err().to_string();
    assert!(
        other.contains("would find other tokens") && other.contains("33"),
        "{other}"
    );
    // A name that only llama.cpp knows cannot be tried.
    assert_eq!(own.to_gguf(rows, Some("somebody")).unwrap().pre, "somebody");
}

#[test]
fn sentencepiece_gets_scores_in_the_order_of_its_merges() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../data/sentencepiece_ids.json")).unwrap();
    let original = crate::sentencepiece::gguf();
    let rows = original.tokens.len();
    let own = of_folder(&Tokenizer::from_gguf(original.clone()).unwrap());
    let written = own.to_gguf(rows, None).unwrap();
    assert_eq!((&*written.model, &*written.pre), ("llama", "default"));
    assert_eq!(written.add_space_prefix, Some(true));
    assert_eq!(written.add_bos, Some(true));
    assert_eq!(written.tokens, original.tokens);
    let byte = original
        .tokens
        .iter()
        .position(|token| token == "<0x41>")
        .unwrap();
    assert_eq!(written.token_types[byte], 6);
    let read = Tokenizer::from_gguf(written).unwrap();
    for case in golden["texts"].as_array().unwrap() {
        let text = case[0].as_str().unwrap();
        assert_eq!(
            json!(read.encode(text, false).unwrap()),
            case[1],
            "{text:?}"
        );
    }
}

#[test]
fn other_kinds_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let of = |tokenizer: serde_json::Value| {
        write(folder.path(), "tokenizer.json", tokenizer.to_string());
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        tokenizer.to_gguf(9, None).unwrap_err().to_string()
    };
    let words = json!({ "version": "1.0", "added_tokens": [], "model": {
        "type": "WordLevel", "vocab": { "a": 0, "b": 1 }, "unk_token": "a" } });
    assert!(of(words).contains("kind WordLevel"));
    let plain = json!({ "version": "1.0", "added_tokens": [], "model": {
        "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] } });
    assert!(of(plain).contains("neither byte-level"));
}

#[test]
fn metadata_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.gguf");
    let mut own = gguf(Some(CHATML));
    own.scores = vec![-1.0; own.tokens.len()];
    own.end_ids = vec![265, 267];
    (own.add_bos, own.add_eos, own.add_space_prefix) = (Some(true), Some(false), Some(true));
    let metadata = own.to_metadata();
    let metadata: Vec<_> = metadata
        .iter()
        .map(|(key, v)| (key.as_str(), v.clone()))
        .collect();
    tightrope_formats::gguf::write::<tightrope_formats::FormatError>(&path, &metadata, vec![])
        .unwrap();
    let read = GgufTokenizer::read(&path).unwrap();
    assert_eq!(
        GgufTokenizer {
            file: Default::default(),
            ..read
        },
        own
    );
}
