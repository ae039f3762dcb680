//! Added tokens beside `tokenizer.json` get the ids of Transformers.

use std::path::Path;

use serde_json::{Value, json};
use tightrope_data::Tokenizer;

use crate::common::write;

fn golden() -> Value {
    serde_json::from_str(include_str!("../data/added_tokens.json")).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &Value) -> Vec<u32> {
    tokenizer.encode(text.as_str().unwrap(), false).unwrap()
}

/// A folder with the small tokenizer of the golden file and `files`.
fn folder(files: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = golden()["tokenizer"].to_string();
    write(folder.path(), "tokenizer.json", tokenizer);
    for (name, content) in files.as_object().unwrap() {
        write(folder.path(), name, content.to_string());
    }
    folder
}

fn fails(folder: &Path) -> String {
    match Tokenizer::from_folder(folder) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn ids_are_those_of_transformers_and_survive_saving() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let tokenizer = Tokenizer::from_folder(folder(&case["files"]).path()).unwrap();
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save_to_folder(saved.path()).unwrap();
        let read_again = Tokenizer::from_folder(saved.path()).unwrap();
        for tokenizer in [tokenizer, read_again] {
            let name = &case["name"];
            assert_eq!(
                json!(ids(&tokenizer, &golden["text"])),
                case["ids"],
                "{name}"
            );
            assert_eq!(json!(tokenizer.eos_id()), case["eos"], "{name}");
        }
    }
}

#[test]
fn an_id_that_nobody_gives_is_told() {
    let token = |text: &str| json!({"content": text, "special": true});
    let files =
        |id: &str| json!({"tokenizer_config.json": {"added_tokens_decoder": {id: token("<x>")}}});
    let same = Tokenizer::from_folder(folder(&files("17")).path()).unwrap();
    assert!(same.notes().is_empty());
    let other = Tokenizer::from_folder(folder(&files("30")).path()).unwrap();
    assert!(other.notes()[0].contains("`<x>` is listed with the id 30; it has 17"));
}

#[test]
fn an_end_without_embedding_is_refused_and_padding_without_one_is_none() {
    let model = json!({"model_type": "llama", "vocab_size": 17});
    let config = json!({"eos_token": "<x>"});
    let files = json!({"tokenizer_config.json": config, "config.json": model});
    let error = fails(folder(&files).path());
    assert!(
        error.contains("tokenizer_config.json: `eos_token`: `<x>` has the id 17"),
        "{error}"
    );
    let config = json!({"eos_token": "</s>", "pad_token": "<x>"});
    let files = json!({"tokenizer_config.json": config, "config.json": model});
    let padded = Tokenizer::from_folder(folder(&files).path()).unwrap();
    assert_eq!((padded.eos_id(), padded.pad_id()), (Some(16), None));
    let config = json!({"bos_token": "<x>", "add_bos_token": true});
    let files = json!({"tokenizer_config.json": config, "config.json": model});
    assert!(fails(folder(&files).path()).contains("`bos_token`: `<x>`"));
    let config = json!({"eos_token": "<x>"});
    let model = json!({"text_config": {"vocab_size": 18}});
    let files = json!({"tokenizer_config.json": config, "config.json": model});
    let fits = Tokenizer::from_folder(folder(&files).path()).unwrap();
    assert_eq!((fits.eos_id(), fits.end_ids()), (Some(17), &[17][..]));
}

#[test]
fn the_models_end_serves_where_the_tokenizer_names_none() {
    let files = json!({"generation_config.json": {"eos_token_id": [16, 3]}});
    let tokenizer = Tokenizer::from_folder(folder(&files).path()).unwrap();
    assert_eq!(tokenizer.eos_id(), Some(16));
    assert_eq!(tokenizer.end_ids(), [3, 16]);
}

#[test]
fn what_is_no_token_is_refused_by_name() {
    for (config, message) in [
        (json!({"eos_token": 5}), "`eos_token`: expected a token"),
        (
            json!({"pad_token": {"text": "x"}}),
            "`pad_token`: expected a token",
        ),
        (json!({"added_tokens_decoder": []}), "expected an object"),
        (
            json!({"added_tokens_decoder": {"x": {"content": "x"}}}),
            "\"x\"",
        ),
        (json!({"extra_special_tokens": "x"}), "expected a list"),
        (
            json!({"additional_special_tokens": [1]}),
            "`additional_special_tokens`",
        ),
    ] {
        let error = fails(folder(&json!({"tokenizer_config.json": config})).path());
        assert!(
            error.contains("tokenizer_config.json: ") && error.contains(message),
            "{error}"
        );
    }
    let files = json!({"added_tokens.json": {"<x>": "one"}});
    let error = fails(folder(&files).path());
    assert!(
        error.contains("added_tokens.json: \"<x>\": expected an id"),
        "{error}"
    );
}

#[test]
fn a_token_never_gets_the_id_of_another() {
    let files = json!({"tokenizer_config.json": {"eos_token": "<x>"}});
    let folder = folder(&files);
    let mut tokenizer = golden()["tokenizer"].clone();
    // There are 17 tokens, but the last has the id 17, so the next free id is taken.
    tokenizer["model"]["vocab"]["</s>"] = json!(17);
    write(folder.path(), "tokenizer.json", tokenizer.to_string());
    let error = fails(folder.path());
    assert!(
        error.contains("`<x>` would get the id 17, which `</s>` has"),
        "{error}"
    );
}
