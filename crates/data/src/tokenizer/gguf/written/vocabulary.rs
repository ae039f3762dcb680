//! Tokens, types, scores and merges of a `tokenizer.json` as GGUF files hold them.

use std::collections::HashMap;

use serde_json::Value;
use tightrope_formats::gguf::GgufTokenizer;

use super::{BYTE, CONTROL, Kind, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, gguf};
use crate::error::DataError;

/// Score of tokens that merging never makes: added ones, and rows without a token.
const NEVER: f32 = -1e4;

/// Fields of the vocabulary for `rows` rows; the caller sets the others.
pub(super) fn read(json: &Value, kind: Kind, rows: usize) -> Result<GgufTokenizer, DataError> {
    let model = &json["model"];
    let empty = Vec::new();
    let added = json["added_tokens"].as_array().unwrap_or(&empty);
    let merges = merges(&model["merges"])?;
    let mut tokens: Vec<Option<(String, i32, f32)>> = vec![None; rows];
    let mut set = |id: &Value, token: (String, i32, f32)| {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let place = id.and_then(|id| tokens.get_mut(id)).ok_or_else(|| {
            gguf(format!(
                "the token `{}` has no row in the embedding of the model",
                token.0
            ))
        })?;
        *place = Some(token);
        Ok::<_, DataError>(())
    };
    let ranks = ranks(&merges);
    let unknown = model["unk_token"].as_str();
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let type_of = match kind {
            Kind::ByteLevel => NORMAL,
            Kind::SentencePiece if Some(text.as_str()) == unknown => UNKNOWN,
            Kind::SentencePiece if is_byte(text) => BYTE,
            Kind::SentencePiece => NORMAL,
        };
        // What no merge makes comes after all that merges make.
        let rank = ranks.get(text.as_str()).copied();
        let score = rank.map_or(-(ranks.len() as f32), |rank| -(rank as f32));
        set(id, (text.clone(), type_of, score))?;
    }
    for token in added {
        let text = token["content"].as_str().unwrap_or_default();
        let special = token["special"].as_bool().unwrap_or(false);
        let (type_of, text) = match special || looks_special(text) {
            true if Some(text) == unknown && kind == Kind::SentencePiece => {
                (UNKNOWN, text.to_owned())
            }
            true => (CONTROL, text.to_owned()),
            // llama.cpp looks for them in the text as it is written.
            false => (USER_DEFINED, text.replace('\u{2581}', " ")),
        };
        // A token for padding may have a name and no row.
        if token["id"].as_u64().is_some_and(|id| id < rows as u64) {
            set(&token["id"], (text, type_of, NEVER))?;
        }
    }
    let tokens = tokens.into_iter().enumerate();
    let tokens =
        tokens.map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED, NEVER)));
    let mut written = GgufTokenizer::default();
    for (text, type_of, score) in tokens {
        written.tokens.push(text);
        written.token_types.push(type_of);
        if kind == Kind::SentencePiece {
            written.scores.push(score);
        }
    }
    match kind {
        Kind::ByteLevel => {
            written.model = "gpt2".into();
            // A space inside a token has a letter of its own, since the pair is divided by one.
            let joined =
                |(left, right): &(&str, &str)| format!("{} {}", lettered(left), lettered(right));
            written.merges = merges.iter().map(joined).collect();
        }
        Kind::SentencePiece => {
            written.model = "llama".into();
            written.add_space_prefix = Some(adds_space(json));
        }
    }
    Ok(written)
}

fn lettered(part: &str) -> String {
    part.replace(' ', "\u{120}")
}

/// Pairs in their order, which files have as lists or as texts with a space between.
fn merges(list: &Value) -> Result<Vec<(&str, &str)>, DataError> {
    let pairs = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|merge| match merge {
            Value::String(text) => text.split_once(' '),
            pair => Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
        });
    let all: Option<_> = pairs.collect();
    all.ok_or_else(|| gguf("a merge of the tokenizer is no pair of tokens"))
}

/// Each token that merging makes, with its place among them in the order of the merges.
fn ranks(merges: &[(&str, &str)]) -> HashMap<String, usize> {
    let mut ranks = HashMap::new();
    for (left, right) in merges {
        let next = ranks.len();
        ranks.entry([*left, *right].concat()).or_insert(next);
    }
    ranks
}

/// Whether the token stands for one byte.
fn is_byte(token: &str) -> bool {
    let digits = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Tokens that llama.cpp takes for control tokens although their files do not.
fn looks_special(token: &str) -> bool {
    let between = |start: &str, end: &str| token.starts_with(start) && token.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&token)
        || between("<|", "|>")
        || between("<\u{ff5c}", "\u{ff5c}>")
        || between("<unused", ">")
}

/// Whether texts begin with a space that they do not have.
fn adds_space(json: &Value) -> bool {
    fn find(part: &Value) -> Option<bool> {
        match part {
            Value::Array(parts) => parts.iter().find_map(find),
            Value::Object(fields) => match fields.get("type").and_then(Value::as_str) {
                Some("Prepend") => Some(true),
                Some("Metaspace") => {
                    Some(fields.get("prepend_scheme").and_then(Value::as_str) != Some("never"))
                }
                _ => fields.values().find_map(find),
            },
            _ => None,
        }
    }
    let parts = ["normalizer", "pre_tokenizer"].iter();
    parts.filter_map(|key| find(&json[*key])).any(|adds| adds)
}
