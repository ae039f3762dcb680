//! Tokenizers from GGUF metadata and from folders, and back.

use proptest::prelude::*;
use serde_json::json;
use tightrope_data::{ChatTemplate, Tokenizer};

use crate::common::{CHATML, gguf, tokenizer, write};

#[test]
fn gguf_merges_splits_digits_and_finds_special_tokens() {
    let t = tokenizer(None);
    let spelled = |text: &str| -> Vec<String> {
        let ids = t.encode(text, true).unwrap();
        ids.into_iter()
            .map(|id| t.id_to_token(id).unwrap())
            .collect()
    };
    assert_eq!(spelled("hello world"), ["hello", "Ġw", "o", "r", "l", "d"]);
    assert_eq!(spelled("he 12"), ["he", "Ġ", "1", "2"]);
    assert_eq!(spelled("<|im_end|>\n\n</s>"), ["<|im_end|>", "ĊĊ", "</s>"]);
    assert_eq!(
        t.decode(&t.encode("한국 🙂 \0", true).unwrap(), false)
            .unwrap(),
        "한국 🙂 \0"
    );
    assert_eq!(t.vocab_size(), 269);
    assert_eq!((t.bos_id(), t.eos_id()), (Some(262), Some(263)));
    // `</s>` is the EOS, `<|im_end|>` and `<end_of_turn>` end turns.
    assert_eq!(t.end_ids(), [263, 265, 267, 268]);
    assert_eq!(
        t.decode(&[263, 97], true).unwrap(),
        t.decode(&[97], false).unwrap()
    );
}

#[test]
fn every_known_way_to_split_builds() {
    for pre in [
        "default",
        "gpt-2",
        "smollm",
        "llama-bpe",
        "smaug-bpe",
        "qwen2",
        "stablelm2",
        "tekken",
        "gpt-4o",
    ] {
        let mut gguf = gguf(None);
        gguf.pre = pre.to_owned();
        let t = Tokenizer::from_gguf(gguf).unwrap();
        for text in ["It's 12345 hello  world\n\n x", "한국어 ½ <|im_start|>", ""] {
            let ids = t.encode(text, false).unwrap();
            assert_eq!(t.decode(&ids, false).unwrap(), text, "{pre}");
        }
        let bos = ["llama-bpe", "tekken"].contains(&pre);
        assert_eq!(
            t.encode("a", true).unwrap().starts_with(&[262]),
            bos,
            "{pre}"
        );
    }
}

#[test]
fn qwen_composes_characters_first() {
    let mut gguf = gguf(None);
    gguf.pre = "qwen2".to_owned();
    let t = Tokenizer::from_gguf(gguf).unwrap();
    assert_eq!(
        t.encode("e\u{301}", false).unwrap(),
        t.encode("é", false).unwrap()
    );
    assert_ne!(
        tokenizer(None).encode("e\u{301}", false).unwrap(),
        tokenizer(None).encode("é", false).unwrap()
    );
}

#[test]
fn ends_of_turns_of_a_gguf_file_are_ends() {
    let mut gguf = gguf(Some(CHATML));
    gguf.tokens[264] = "<|turn_stop|>".to_owned();
    gguf.end_ids = vec![264, 266];
    let t = Tokenizer::from_gguf(gguf).unwrap();
    assert_eq!(t.end_ids(), [263, 264, 265, 266, 267, 268]);
    assert_eq!(t.eos_id(), Some(263));
}

#[test]
fn chat_templates_of_a_gguf_file_go_by_name_and_errors_name_the_file() {
    let mut gguf = gguf(Some(CHATML));
    gguf.file = "folder/model.gguf".into();
    let tools = ("tool_use".to_owned(), "{{ tools }}".to_owned());
    gguf.chat_templates.push(tools);
    let t = Tokenizer::from_gguf(gguf.clone()).unwrap();
    let templates = t.chat_templates().unwrap();
    assert_eq!(templates.choose(false).source(), CHATML);
    assert_eq!(templates.choose(true).source(), "{{ tools }}");
    let folder = tempfile::tempdir().unwrap();
    t.save_to_folder(folder.path()).unwrap();
    let saved = folder
        .path()
        .join("additional_chat_templates/tool_use.jinja");
    assert_eq!(std::fs::read_to_string(saved).unwrap(), "{{ tools }}");
    gguf.chat_templates[1].1 = "{% if".to_owned();
    let refused = Tokenizer::from_gguf(gguf).err().unwrap().to_string();
    assert!(refused.contains("folder/model.gguf"), "{refused}");
}

#[test]
fn a_saved_tokenizer_reads_back_the_same() {
    let mut gguf = gguf(Some(CHATML));
    gguf.add_bos = Some(true);
    let original = Tokenizer::from_gguf(gguf).unwrap();
    let folder = tempfile::tempdir().unwrap();
    original.save_to_folder(folder.path()).unwrap();
    let back = Tokenizer::from_folder(folder.path()).unwrap();
    let text = "hello 한국 <|im_end|> 123";
    assert_eq!(
        back.encode(text, true).unwrap(),
        original.encode(text, true).unwrap()
    );
    assert_eq!(back.encode(text, true).unwrap()[0], 262);
    assert_eq!(back.end_ids(), original.end_ids());
    assert_eq!(
        (back.bos_id(), back.pad_id()),
        (original.bos_id(), original.pad_id())
    );
    assert_eq!(back.chat_template().unwrap().source(), CHATML);
    assert!(!folder.path().join("tokenizer.json.tmp").exists());
}

#[test]
fn a_folder_is_read_with_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut t = tokenizer(None);
    t.save_to_folder(folder.path()).unwrap();
    // Settings that a file may request, but that must not apply unnoticed.
    let path = folder.path().join("tokenizer.json");
    let mut file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
    std::fs::write(&path, file.to_string()).unwrap();
    let config = json!({
        "add_bos_token": true, "bos_token": {"content": "<s>", "special": true},
        "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}],
    });
    write(folder.path(), "tokenizer_config.json", config.to_string());
    write(
        folder.path(),
        "special_tokens_map.json",
        r#"{"eos_token": "</s>"}"#,
    );
    write(
        folder.path(),
        "generation_config.json",
        r#"{"eos_token_id": [263, 7]}"#,
    );
    write(folder.path(), "config.json", r#"{"eos_token_id": 8}"#);
    t = Tokenizer::from_folder(folder.path()).unwrap();
    let spelled = t
        .encode("abcd", true)
        .unwrap()
        .into_iter()
        .map(|id| t.id_to_token(id).unwrap());
    assert_eq!(spelled.collect::<Vec<_>>(), ["<s>", "a", "b", "c", "d"]);
    assert_eq!(
        (t.bos_id(), t.eos_id(), t.pad_id()),
        (Some(262), Some(263), None)
    );
    assert_eq!(t.end_ids(), [7, 8, 263, 265, 267, 268]);
    assert_eq!(t.chat_template().unwrap().source(), "d");
    write(folder.path(), "chat_template.jinja", "file");
    t = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(t.chat_template().unwrap().source(), "file");
    t.set_chat_template(ChatTemplate::compile("mine").unwrap());
    assert_eq!(t.chat_template().unwrap().source(), "mine");
}

proptest! {
    #[test]
    fn offsets_cover_the_text_and_decoding_inverts(text in "\\PC{0,40}|[a-z \\n0-9]{0,40}") {
        let t = tokenizer(None);
        let tokens = t.encode_with_offsets(&text).unwrap();
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        prop_assert_eq!(&t.encode(&text, false).unwrap(), &ids);
        prop_assert_eq!(t.decode(&ids, false).unwrap(), text.as_str());
        let mut covered = 0;
        for token in &tokens {
            prop_assert!(token.bytes.start <= covered && covered <= token.bytes.end);
            prop_assert!(text.is_char_boundary(token.bytes.start) && text.is_char_boundary(token.bytes.end));
            covered = token.bytes.end;
        }
        prop_assert_eq!(covered, text.len());
    }
}
