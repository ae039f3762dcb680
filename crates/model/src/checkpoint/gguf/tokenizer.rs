//! The tokenizer inside a GGUF file, as data: what to make of it is the caller's.

use super::{GgufValue, reader};
use crate::{ConfigError, ModelError};
use std::{collections::BTreeMap, path::Path};

/// The fields `tokenizer.*` of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTokenizerData {
    /// `tokenizer.ggml.model`: `gpt2`, `llama`, …
    pub model: String,
    /// `tokenizer.ggml.pre`; `default` where the file does not say.
    pub pre: String,
    /// Spelling of each id.
    pub tokens: Vec<String>,
    /// Kind of each id; empty = not said.
    pub token_types: Vec<i32>,
    /// Score of each id; empty = not said.
    pub scores: Vec<f32>,
    /// Pairs with a space between them, the most important first.
    pub merges: Vec<String>,
    /// Begin of text.
    pub bos_id: Option<u32>,
    /// End of text.
    pub eos_id: Option<u32>,
    /// What stands for text without tokens.
    pub unknown_id: Option<u32>,
    /// Padding.
    pub pad_id: Option<u32>,
    /// Further ends of turns and messages.
    pub end_ids: Vec<u32>,
    /// Whether a begin is put before texts.
    pub add_bos: Option<bool>,
    /// Whether an end is put after texts.
    pub add_eos: Option<bool>,
    /// Whether a space is put before texts.
    pub add_space_prefix: Option<bool>,
    /// Chat templates by name: `default` is `tokenizer.chat_template`, `NAME` is
    /// `tokenizer.chat_template.NAME`.
    pub chat_templates: Vec<(String, String)>,
}

impl GgufTokenizerData {
    /// Reads them from the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let metadata = reader::read(path)?.metadata;
        let fields = Fields {
            path,
            metadata: &metadata,
        };
        let model = fields.text("tokenizer.ggml.model")?;
        let tokens = fields.list("tokenizer.ggml.tokens", |value| match value {
            GgufValue::Text(text) => Some(text.clone()),
            _ => None,
        })?;
        Ok(Self {
            model: model.ok_or_else(|| fields.error("tokenizer.ggml.model", "is missing"))?,
            pre: fields
                .text("tokenizer.ggml.pre")?
                .unwrap_or_else(|| "default".into()),
            tokens: tokens.ok_or_else(|| fields.error("tokenizer.ggml.tokens", "is missing"))?,
            token_types: fields
                .list("tokenizer.ggml.token_type", |value| match value {
                    GgufValue::Integer(kind) => i32::try_from(*kind).ok(),
                    _ => None,
                })?
                .unwrap_or_default(),
            scores: fields
                .list("tokenizer.ggml.scores", |value| match value {
                    GgufValue::Float(score) => Some(*score as f32),
                    _ => None,
                })?
                .unwrap_or_default(),
            merges: fields
                .list("tokenizer.ggml.merges", |value| match value {
                    GgufValue::Text(text) => Some(text.clone()),
                    _ => None,
                })?
                .unwrap_or_default(),
            bos_id: fields.id("tokenizer.ggml.bos_token_id")?,
            eos_id: fields.id("tokenizer.ggml.eos_token_id")?,
            unknown_id: fields.id("tokenizer.ggml.unknown_token_id")?,
            pad_id: fields.id("tokenizer.ggml.padding_token_id")?,
            end_ids: end_ids(&metadata).map_err(|(key, reason)| fields.error(key, reason))?,
            add_bos: fields.flag("tokenizer.ggml.add_bos_token")?,
            add_eos: fields.flag("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: fields.flag("tokenizer.ggml.add_space_prefix")?,
            chat_templates: fields.chat_templates()?,
        })
    }
}

/// Elements of a list: ten times those of the largest vocabulary and its merges.
const LONGEST_LIST: usize = 1 << 22;

/// Ids in one list of ends.
const MOST_ENDS: usize = 1 << 10;

/// Ids that end a turn, a message or a text besides `eos_token_id`: an id or a list under each key,
/// the last of which Ollama writes. An error names the key.
pub(super) fn end_ids(
    metadata: &BTreeMap<String, GgufValue>,
) -> Result<Vec<u32>, (&'static str, &'static str)> {
    let keys = [
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.eos_token_ids",
    ];
    let mut ids = Vec::new();
    for key in keys {
        let values = match metadata.get(key) {
            None => continue,
            Some(GgufValue::List(list)) if list.len <= MOST_ENDS => list.iter().collect(),
            Some(one) => vec![one.clone()],
        };
        for value in values {
            let id = match value {
                GgufValue::Integer(id) => u32::try_from(id).ok(),
                _ => None,
            };
            ids.push(id.ok_or((key, "expected token ids"))?);
        }
    }
    Ok(ids)
}

struct Fields<'a> {
    path: &'a Path,
    metadata: &'a BTreeMap<String, GgufValue>,
}

impl Fields<'_> {
    fn error(&self, key: &str, reason: &str) -> ModelError {
        ModelError::Config {
            file: self.path.to_path_buf(),
            error: ConfigError::new(key, reason),
        }
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&GgufValue) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let found = read(value);
        found
            .map(Some)
            .ok_or_else(|| self.error(key, &format!("expected {expected}")))
    }

    fn text(&self, key: &str) -> Result<Option<String>, ModelError> {
        self.read(key, "text", |value| match value {
            GgufValue::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    fn chat_templates(&self) -> Result<Vec<(String, String)>, ModelError> {
        const KEY: &str = "tokenizer.chat_template";
        let mut templates = Vec::new();
        for key in self.metadata.keys() {
            let name = match key.strip_prefix(KEY) {
                Some("") => "default",
                Some(rest) => match rest.strip_prefix('.') {
                    Some(name) => name,
                    None => continue,
                },
                None => continue,
            };
            if let Some(source) = self.text(key)? {
                templates.push((name.to_owned(), source));
            }
        }
        Ok(templates)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.read(key, "true or false", |value| match value {
            GgufValue::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    fn id(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.read(key, "a token id", |value| match value {
            GgufValue::Integer(id) => u32::try_from(*id).ok(),
            _ => None,
        })
    }

    fn list<T>(
        &self,
        key: &str,
        one: impl Fn(&GgufValue) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ModelError> {
        self.read(
            key,
            "a list of one type, not too long",
            |value| match value {
                GgufValue::List(list) if list.len <= LONGEST_LIST => {
                    list.iter().map(|value| one(&value)).collect()
                }
                _ => None,
            },
        )
    }
}
