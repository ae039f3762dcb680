//! New tokens of a run: adds them to the tokenizer and says what their rows start with.

use crate::RunError;
use serde_json::Value;
use std::{fs, path::Path};
use tightrope_data::Tokenizer;
use tightrope_model::NewToken;
use tightrope_train::{
    Config, Observer,
    config::{ConfigError, TokenStart},
};

/// Adds the tokens of a configuration and those of its adapter to the tokenizer of the model.
/// Returns the tokens of the configuration that the model does not know.
pub(crate) fn add(tokenizer: &mut Tokenizer, config: &Config) -> Result<Vec<NewToken>, RunError> {
    let section = &config.tokens;
    let wrong = |token: &str, message: String| {
        let is_special = section.add_special.iter().any(|special| special == token);
        let key = if is_special {
            "tokens.add_special"
        } else {
            "tokens.add"
        };
        match config.places.of(key) {
            Some(place) => ConfigError::Conflict {
                place: place.clone(),
                message,
            }
            .into(),
            None => RunError::NewToken { message },
        }
    };
    let beside = match &config.adapter {
        Some(adapter) => Tokenizer::beside_adapter(adapter)?,
        None => None,
    };
    if let Some(adapter) = &config.adapter {
        let has = |of: Option<&Tokenizer>, token| of.and_then(|of| of.token_to_id(token)).is_some();
        let known = |token| has(Some(tokenizer), token) || has(beside.as_ref(), token);
        if let Some((token, _)) = section.all().find(|(token, _)| !known(token)) {
            let message = format!(
                "the adapter {} does not know the token `{token}`: an adapter goes on with its own \
                 tokens",
                adapter.display()
            );
            return Err(wrong(token, message));
        }
    }
    // Texts are encoded before any token is added.
    let mut froms = Vec::new();
    for (token, _) in section.all() {
        let text = match (section.descriptions.get(token), section.init) {
            (Some(text), _) => Some(text.as_str()),
            (None, Some(TokenStart::Pieces)) => Some(token),
            (None, Some(TokenStart::Mean) | None) => None,
        };
        let from = text.map(|text| tokenizer.encode(text, false)).transpose()?;
        froms.push(from.unwrap_or_default());
    }
    let mut new = Vec::new();
    for ((token, special), from) in section.all().zip(froms) {
        let id = tokenizer.add_token(token, special);
        let id = id.map_err(|error| wrong(token, error.to_string()))?;
        if let Some(id) = id {
            new.push(NewToken { id, from });
        }
    }
    if let Some(beside) = &beside {
        tokenizer.add_tokens_of(beside)?;
    }
    Ok(new)
}

/// Says that an adapter has rows of tokens that the tokenizer does not have, if it has.
pub(crate) fn say_if_unnamed(tokenizer: &Tokenizer, adapter: &Path, observer: &dyn Observer) {
    let text = fs::read(adapter.join("adapter_config.json")).unwrap_or_default();
    let settings: Value = serde_json::from_slice(&text).unwrap_or_default();
    let lists: Vec<&Value> = match &settings["trainable_token_indices"] {
        Value::Object(modules) => modules.values().collect(),
        list => vec![list],
    };
    let ids = lists.into_iter().filter_map(Value::as_array).flatten();
    let highest = ids.filter_map(Value::as_u64).max();
    if let Some(id) = highest.filter(|&id| id >= tokenizer.vocab_size() as u64) {
        observer.notice(&format!(
            "the adapter {} has the row of a token {id}, which no text becomes: the tokenizer has no \
             such token, and the folder has no tokenizer.json; put the one of its training there",
            adapter.display()
        ));
    }
}
