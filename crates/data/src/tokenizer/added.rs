//! Added tokens that `tokenizer.json` lacks, with the ids that Transformers gives them.

use std::collections::HashMap;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Model};

use super::special::{NAMED, token_text};

/// Tokens of files beside `tokenizer.json`, with the ids in these files.
pub(super) type Listed = Vec<(u64, AddedToken)>;

/// Adds `listed` by their ids, then the tokens that `config` names; tokens in the vocabulary keep
/// their ids, and the others get the next ids, as in Transformers. Returns notes about differences
/// from the list.
pub(super) fn add(
    inner: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    mut listed: Listed,
) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut known = HashMap::new();
    if !config.contains_key("added_tokens_decoder") {
        let own = inner.get_added_tokens_decoder().into_values();
        known.extend(own.map(|token| (token.content.clone(), token)));
        listed.retain(|(_, token)| !known.contains_key(&token.content));
    }
    listed.sort_by_key(|(id, _)| *id);
    for (_, token) in &listed {
        known.insert(token.content.clone(), token.clone());
        tokens.push(token.clone());
    }
    for token in named(config)? {
        let token = known.get(&token.content).unwrap_or(&token).clone();
        tokens.push(token.special(true));
    }
    tokens.retain(|token| !token.content.is_empty());
    let without_id = |token: &&AddedToken| inner.token_to_id(&token.content).is_none();
    let fresh: Vec<String> = tokens.iter().filter(without_id).map(text).collect();
    inner
        .add_tokens(tokens)
        .map_err(|error| error.to_string())?;
    for token in &fresh {
        let id = inner.token_to_id(token);
        let other = id.and_then(|id| inner.get_model().id_to_token(id));
        if let (Some(id), Some(other)) = (id, other) {
            return Err(format!(
                "added token `{token}` would get the id {id}, which `{other}` has in \
                 tokenizer.json; add it there with an id of its own"
            ));
        }
    }
    let differs = |(listed, token): &(u64, AddedToken)| {
        let id = inner.token_to_id(&token.content).map(u64::from)?;
        (id != *listed).then(|| {
            format!(
                "token `{}` is listed with the id {listed}; it has {id}, here and in Transformers",
                token.content
            )
        })
    };
    Ok(listed.iter().filter_map(differs).collect())
}

fn text(token: &AddedToken) -> String {
    token.content.clone()
}

/// `added_tokens_decoder` of `tokenizer_config.json`.
pub(super) fn listed_in_config(decoder: &Value) -> Result<Listed, String> {
    let entries = decoder.as_object();
    let entries = entries.ok_or("`added_tokens_decoder`: expected an object")?;
    let one = |(id, token): (&String, &Value)| {
        let id = id.parse::<u64>().ok();
        Some((id?, described(token.as_object()?)?))
    };
    let all = entries.iter().map(|entry| {
        let wrong = || {
            format!(
                "`added_tokens_decoder`: {:?}: expected an id and a token with its `content`",
                entry.0
            )
        };
        one(entry).ok_or_else(wrong)
    });
    all.collect()
}

/// Tokens of `added_tokens.json`; a token that `config` names is special.
pub(super) fn listed_in_file(
    file: &Map<String, Value>,
    config: &Map<String, Value>,
) -> Result<Listed, String> {
    let special: Vec<String> = named(config)?.iter().map(text).collect();
    let all = file.iter().map(|(text, id)| {
        let id = id.as_u64();
        let id = id.ok_or_else(|| format!("{text:?}: expected an id"))?;
        Ok((id, AddedToken::from(text.clone(), special.contains(text))))
    });
    all.collect()
}

/// Tokens that a configuration names, in the order of Transformers.
fn named(config: &Map<String, Value>) -> Result<Vec<AddedToken>, String> {
    let mut tokens = Vec::new();
    for key in NAMED {
        match config.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(value) => tokens.push(token(key, value)?),
        }
    }
    let named_otherwise = config.iter().filter(|(key, _)| {
        let key = key.as_str();
        key.ends_with("_token") && !NAMED.contains(&key)
    });
    let named_otherwise = named_otherwise.filter(|(_, value)| token_text(value).is_some());
    for (key, value) in named_otherwise {
        tokens.push(token(key, value)?);
    }
    let present = |key: &&str| config.get(*key).is_some_and(|value| !is_empty(value));
    let extra = ["extra_special_tokens", "additional_special_tokens"];
    let Some(key) = extra.into_iter().find(present) else {
        return Ok(tokens);
    };
    match &config[key] {
        Value::Array(list) => {
            for value in list {
                tokens.push(token(key, value)?);
            }
        }
        Value::Object(named) => {
            for value in named.values() {
                tokens.push(token(key, value)?);
            }
        }
        _ => return Err(format!("`{key}`: expected a list of tokens")),
    }
    Ok(tokens)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn token(key: &str, value: &Value) -> Result<AddedToken, String> {
    let described = match value {
        Value::String(text) => Some(AddedToken::from(text.clone(), true)),
        Value::Object(fields) => described(fields),
        _ => None,
    };
    described.ok_or_else(|| format!("`{key}`: expected a token, as text or with its `content`"))
}

/// A token with its properties, which Transformers writes as an object.
fn described(fields: &Map<String, Value>) -> Option<AddedToken> {
    let flag = |key: &str, default: bool| fields.get(key).map_or(Some(default), Value::as_bool);
    let special = flag("special", false)?;
    let token = AddedToken::from(fields.get("content")?.as_str()?, special);
    Some(
        token
            .single_word(flag("single_word", false)?)
            .lstrip(flag("lstrip", false)?)
            .rstrip(flag("rstrip", false)?)
            .normalized(flag("normalized", !special)?),
    )
}
