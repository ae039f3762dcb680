//! New tokens of a tokenizer: ids, texts, and what is saved.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tightrope_data::Tokenizer;

/// A word-level tokenizer with two added tokens, in a folder.
fn folder(listed: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let added = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [added(3, "<s>"), added(4, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"},
    });
    let mut config = json!({"eos_token": "</s>"});
    if listed {
        let mut token = added(4, "</s>");
        token.as_object_mut().unwrap().remove("id");
        config["added_tokens_decoder"] = json!({ "4": token });
    }
    write(folder.path(), "tokenizer.json", &tokenizer);
    write(folder.path(), "tokenizer_config.json", &config);
    folder
}

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).unwrap();
}

#[test]
fn new_tokens_get_the_next_ids_and_are_saved() {
    for listed in [false, true] {
        let folder = folder(listed);
        let mut tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        let before = tokenizer.identity().unwrap();
        assert!(!tokenizer.has_new_tokens());
        assert_eq!(tokenizer.add_token("<tool>", false).unwrap(), Some(5));
        assert_eq!(tokenizer.add_token("<|im_end|>", true).unwrap(), Some(6));
        // A token that is there keeps its id.
        assert_eq!(tokenizer.add_token("</s>", true).unwrap(), None);
        assert_eq!(tokenizer.add_token("<tool>", false).unwrap(), None);
        assert!(tokenizer.has_new_tokens());
        assert_ne!(before, tokenizer.identity().unwrap());
        assert_eq!(tokenizer.vocab_size(), 7);
        assert_eq!(tokenizer.end_ids(), [4, 6], "known ends end a text");
        let ids = [0, 5, 1, 6];
        let check = |tokenizer: &Tokenizer| {
            assert_eq!(tokenizer.encode("a<tool>b<|im_end|>", false).unwrap(), ids);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a <tool> b");
            assert_eq!(tokenizer.end_ids(), [4, 6]);
        };
        check(&tokenizer);
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save_beside_adapter(saved.path()).unwrap();
        check(&Tokenizer::from_folder(saved.path()).unwrap());
        // An adapter's tokenizer adds to that of the model.
        let mut again = Tokenizer::from_folder(folder.path()).unwrap();
        let beside = Tokenizer::beside_adapter(saved.path()).unwrap().unwrap();
        again.add_tokens_of(&beside).unwrap();
        check(&again);
        assert!(again.has_new_tokens());
    }
}

#[test]
fn beside_an_adapter_nothing_is_written_without_new_tokens() {
    let folder = folder(false);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save_beside_adapter(saved.path()).unwrap();
    assert!(!saved.path().join("tokenizer.json").exists());
    assert!(Tokenizer::beside_adapter(saved.path()).unwrap().is_none());
}

#[test]
fn an_adapter_with_other_ids_is_refused() {
    let (one, other) = (folder(false), folder(false));
    let mut tokenizer = Tokenizer::from_folder(other.path()).unwrap();
    tokenizer.add_token("<x>", false).unwrap();
    tokenizer.add_token("<y>", false).unwrap();
    tokenizer.save_to_folder(other.path()).unwrap();
    let mut tokenizer = Tokenizer::from_folder(one.path()).unwrap();
    tokenizer.add_token("<y>", false).unwrap();
    let beside = Tokenizer::from_folder(other.path()).unwrap();
    let error = tokenizer.add_tokens_of(&beside).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`<x>` has the id 5 in the tokenizer beside the adapter and 6"),
        "{text}"
    );
}

/// As a token of its own, an entry of the vocabulary would be found inside words.
#[test]
fn an_entry_of_the_vocabulary_is_no_new_token() {
    let folder = folder(false);
    let mut tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let error = tokenizer.add_token("b", false).unwrap_err().to_string();
    assert!(
        error.contains("already an entry of the vocabulary (id 1)"),
        "{error}"
    );
    assert!(!tokenizer.has_new_tokens());
    // A tokenizer beside an adapter may have made it one.
    let mut text = fs::read_to_string(folder.path().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    let mut token = json["added_tokens"][0].clone();
    token["id"] = 1.into();
    token["content"] = "b".into();
    json["added_tokens"]
        .as_array_mut()
        .unwrap()
        .insert(0, token);
    text = json.to_string();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("tokenizer.json"), text).unwrap();
    let beside = Tokenizer::beside_adapter(other.path()).unwrap().unwrap();
    let expected = beside.encode("abb", false).unwrap();
    assert_ne!(tokenizer.encode("abb", false).unwrap(), expected);
    tokenizer.add_tokens_of(&beside).unwrap();
    assert_eq!(tokenizer.encode("abb", false).unwrap(), expected);
}
