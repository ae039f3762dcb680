//! The section `[tokens]`.

use super::{ConfigError, Place, read::Values};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use toml::Value;

/// `[tokens]`: tokens that the model's tokenizer does not have. Absent keys are not written, like in
/// checkpoints from before the section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct TokensSection {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_special: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<TokenStart>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub descriptions: BTreeMap<String, String>,
}

/// Initial rows of new tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum TokenStart {
    Mean,
    Pieces,
}

impl TokensSection {
    /// The tokens, special ones last, with whether they are special.
    pub fn all(&self) -> impl Iterator<Item = (&str, bool)> {
        let ordinary = self.add.iter().map(|token| (token.as_str(), false));
        let special = self.add_special.iter().map(|token| (token.as_str(), true));
        ordinary.chain(special)
    }
}

/// Refuses a token that is named twice, and settings of tokens that are not added.
pub(super) fn check(values: &Values) -> Result<(), ConfigError> {
    let conflict = |key: &str, message: String| match values.place(key) {
        Some(place) => ConfigError::Conflict {
            place: place.clone(),
            message,
        },
        None => ConfigError::Conflict {
            place: Place::Set(key.to_owned()),
            message,
        },
    };
    let mut tokens = BTreeSet::new();
    for key in ["tokens.add", "tokens.add_special"] {
        let list = values.get(key).and_then(Value::as_array);
        for token in list.into_iter().flatten().filter_map(Value::as_str) {
            if !tokens.insert(token) {
                return Err(conflict(
                    key,
                    format!("`{key}` adds `{token}`, which is added already"),
                ));
            }
        }
    }
    let descriptions = "tokens.descriptions";
    let described = values.get(descriptions).and_then(Value::as_table);
    if let Some(token) = described.and_then(|table| table.keys().find(|t| !tokens.contains(&***t)))
    {
        let message = format!(
            "`{descriptions}` describes `{token}`, which neither `tokens.add` nor \
             `tokens.add_special` adds"
        );
        return Err(conflict(descriptions, message));
    }
    if tokens.is_empty() && values.get("tokens.init").is_some() {
        let message = "`tokens.init` needs new tokens: set `tokens.add` or `tokens.add_special`";
        return Err(conflict("tokens.init", message.into()));
    }
    Ok(())
}
