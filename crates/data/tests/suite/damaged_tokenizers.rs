//! Files of a tokenizer that are damaged, missing or hostile: one error that names the file.

use serde_json::{Value, json};
use tightrope_data::{DataError, Tokenizer};

use crate::common::{tokenizer, write};

fn fails(folder: &tempfile::TempDir) -> String {
    match Tokenizer::from_folder(folder.path()) {
        Err(error @ DataError::TokenizerFile { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

fn folder(content: impl AsRef<[u8]>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tokenizer.json", content);
    folder
}

/// The `tokenizer.json` of the small tokenizer, changed.
fn changed(change: impl Fn(&mut Value)) -> String {
    let folder = tempfile::tempdir().unwrap();
    tokenizer(None).save_to_folder(folder.path()).unwrap();
    let bytes = std::fs::read(folder.path().join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut file);
    file.to_string()
}

#[test]
fn what_panics_in_the_library_is_an_error() {
    let template = |single: Value, tokens: Value| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens});
    let sequence = |id: &str| json!([{"Sequence": {"id": id, "type_id": 0}}]);
    let token = json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}]);
    let charsmap = |map: &str| json!({"type": "Precompiled", "precompiled_charsmap": map});
    let replace = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"});
    for (part, value) in [
        ("post_processor", template(sequence("B"), json!({}))),
        ("post_processor", template(token, json!({}))),
        ("normalizer", replace.clone()),
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": [replace]}),
        ),
        ("normalizer", charsmap("")),
        ("normalizer", charsmap("AAAAAAAAAAAAAAAAAAAA")),
        ("normalizer", charsmap("/////////////w==")),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("decoder", json!({"type": "Nonsense"})),
    ] {
        let file = changed(|file| file[part] = value.clone());
        let error = fails(&folder(file));
        assert!(error.contains("tokenizer.json: "), "{error}");
    }
    let affixes = changed(|file| {
        file["model"]["continuing_subword_prefix"] = json!("####");
        file["model"]["end_of_word_suffix"] = json!("</w>");
    });
    fails(&folder(affixes));
}

#[test]
fn a_table_that_claims_gigabytes_is_not_allocated() {
    let map = json!({"type": "Precompiled", "precompiled_charsmap": "/////////////w=="});
    let error = fails(&folder(changed(|file| file["normalizer"] = map.clone())));
    assert!(
        error.contains("claims a table of 4294967295 bytes and holds 12"),
        "{error}"
    );
}

#[test]
fn tokenizing_at_random_is_refused() {
    let error = fails(&folder(changed(|file| {
        file["model"]["dropout"] = json!(0.1)
    })));
    assert!(
        error.contains("`model.dropout` is 0.1") && error.contains("null"),
        "{error}"
    );
    for none in [Value::Null, json!(0.0)] {
        let file = folder(changed(|file| file["model"]["dropout"] = none.clone()));
        assert!(Tokenizer::from_folder(file.path()).is_ok());
    }
}

#[test]
fn files_that_are_not_what_they_are_called_have_words_of_their_own() {
    let whole = changed(|_| {});
    for end in [1, 2, whole.len() / 2, whole.len() - 1] {
        let error = fails(&folder(&whole[..end]));
        assert!(error.contains("cut off, download it again"), "{error}");
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    assert!(fails(&folder(pointer)).contains("git lfs pull"));
    let deep = "[".repeat(100_000);
    for part in ["normalizer", "decoder", "model", "added_tokens", "unknown"] {
        fails(&folder(format!(
            "{{\"version\": \"1.0\", \"{part}\": {deep}"
        )));
    }
    fails(&folder(""));
    fails(&folder("{}"));
    let no_file = tempfile::tempdir().unwrap();
    std::fs::create_dir(no_file.path().join("tokenizer.json")).unwrap();
    assert!(fails(&no_file).contains("not a file"));
    let other = folder(&whole);
    write(other.path(), "tokenizer_config.json", pointer);
    let error = fails(&other);
    assert!(
        error.contains("tokenizer_config.json: a Git LFS pointer"),
        "{error}"
    );
}

#[test]
fn a_missing_file_says_what_it_can_be_made_from() {
    let empty = tempfile::tempdir().unwrap();
    let missing = || match Tokenizer::from_folder(empty.path()) {
        Err(error @ DataError::NoTokenizer { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    };
    assert!(missing().contains("tokenizer.json: not found; put"));
    write(empty.path(), "vocab.json", "{}");
    assert!(missing().contains("from the vocab.json beside it"));
    write(empty.path(), "tokenizer.model", "");
    let error = missing();
    assert!(error.contains("tokenizer.model") && error.contains("save_pretrained"));
}
