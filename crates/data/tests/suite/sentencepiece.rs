//! SentencePiece tokenizers of GGUF files give the ids of SentencePiece.

use serde_json::Value;
use tightrope_data::{DataError, GgufTokenizer, Tokenizer};

fn golden() -> Value {
    serde_json::from_str(include_str!("../data/sentencepiece_ids.json")).unwrap()
}

/// The vocabulary of the golden file, as a GGUF file has it.
pub(crate) fn gguf() -> GgufTokenizer {
    let golden = golden();
    let pieces = golden["pieces"].as_array().unwrap();
    let text = |piece: &Value| piece[0].as_str().unwrap().to_owned();
    GgufTokenizer {
        model: "llama".to_owned(),
        pre: "default".to_owned(),
        tokens: pieces.iter().map(text).collect(),
        scores: pieces
            .iter()
            .map(|piece| piece[1].as_f64().unwrap() as f32)
            .collect(),
        token_types: pieces
            .iter()
            .map(|piece| piece[2].as_i64().unwrap() as i32)
            .collect(),
        bos_id: Some(1),
        eos_id: Some(2),
        unknown_id: Some(0),
        pad_id: Some(3),
        ..GgufTokenizer::default()
    }
}

#[test]
fn ids_are_those_of_sentencepiece_and_text_comes_back() {
    let saved = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_gguf(gguf()).unwrap();
    tokenizer.save_to_folder(saved.path()).unwrap();
    let read_again = Tokenizer::from_folder(saved.path()).unwrap();
    for tokenizer in [tokenizer, read_again] {
        for case in golden()["texts"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(serde_json::json!(ids), case[1], "{text:?}");
            let decoded = tokenizer.decode(&ids, false).unwrap();
            assert_eq!(decoded, text.replace('▁', " "));
            let mut stream = tokenizer.decode_stream();
            let parts = ids.iter().filter_map(|&id| stream.step(id).unwrap());
            assert_eq!(parts.collect::<String>(), decoded);
            let whole = [&[1], &ids[..]].concat();
            assert_eq!(tokenizer.encode(text, true).unwrap(), whole);
        }
    }
}

#[test]
fn special_tokens_are_found_and_what_follows_begins_anew() {
    let tokenizer = Tokenizer::from_gguf(gguf()).unwrap();
    let word = tokenizer.encode("the", false).unwrap();
    let ids = tokenizer
        .encode("<turn>the</s><unk>the<sep>the", false)
        .unwrap();
    let wanted = [&[4], &word[..], &[2, 0], &word, &[5], &word].concat();
    assert_eq!(ids, wanted);
    assert_eq!(tokenizer.end_ids(), [2]);
}

#[test]
fn the_space_before_a_text_and_bos_are_as_the_file_says() {
    let mut without = gguf();
    without.add_space_prefix = Some(false);
    without.add_bos = Some(false);
    let without = Tokenizer::from_gguf(without).unwrap();
    let with = Tokenizer::from_gguf(gguf()).unwrap();
    assert_eq!(
        without.encode(" the", true).unwrap(),
        with.encode("the", false).unwrap()
    );
    let ids = without.encode(" the", false).unwrap();
    assert_eq!(without.decode(&ids, false).unwrap(), " the");
}

#[test]
fn without_tokens_for_bytes_what_is_unknown_is_one_token() {
    let mut gguf = gguf();
    gguf.tokens[6] = "no byte".to_owned();
    let tokenizer = Tokenizer::from_gguf(gguf).unwrap();
    let ids = tokenizer.encode("the中文", false).unwrap();
    assert_eq!(ids.last(), Some(&0));
}

#[test]
fn what_cannot_be_built_is_told() {
    let fails = |change: fn(&mut GgufTokenizer)| {
        let mut gguf = gguf();
        change(&mut gguf);
        match Tokenizer::from_gguf(gguf) {
            Err(DataError::Gguf { message }) => message,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    };
    assert!(fails(|g| g.scores.clear()).contains("0 scores for 700 tokens"));
    assert!(fails(|g| g.scores[400] = f32::NAN).contains("token 400"));
    assert!(fails(|g| g.tokens[400] = "x".repeat(2000)).contains("2000 bytes"));
    assert!(fails(|g| g.end_ids = vec![9999]).contains("end token id 9999"));
    let nothing_for_unknown = fails(|g| {
        g.tokens[6] = "no byte".to_owned();
        g.unknown_id = None;
        g.token_types[0] = 3;
    });
    assert!(nothing_for_unknown.contains("neither"));
}
