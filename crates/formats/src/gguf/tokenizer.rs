//! The tokenizer inside a GGUF file, as data; the caller decides how to use it.

use super::{Gguf, List, Metadata, Value};
use crate::FormatError;
use std::path::{Path, PathBuf};

/// The `tokenizer.*` metadata of a GGUF file; each field names its key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokenizer {
    /// Kind of tokenizer (`tokenizer.ggml.model`); known are `gpt2` (byte-level BPE) and `llama`
    /// (SentencePiece).
    pub model: String,
    /// Name of the method that splits text before merging (`tokenizer.ggml.pre`).
    pub pre: String,
    /// Spelling of each id (`tokenizer.ggml.tokens`).
    pub tokens: Vec<String>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    /// (`tokenizer.ggml.token_type`); empty = all normal.
    pub token_types: Vec<i32>,
    /// Score of each token; tokens with higher scores are merged first (`tokenizer.ggml.scores`).
    pub scores: Vec<f32>,
    /// Pairs, separated by a space, the most important first (`tokenizer.ggml.merges`).
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`
    pub bos_id: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`
    pub eos_id: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`
    pub unknown_id: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`
    pub pad_id: Option<u32>,
    /// Further ends of a turn, of a message or of a text (`tokenizer.ggml.eot_token_id` and the
    /// like).
    pub end_ids: Vec<u32>,
    /// `tokenizer.ggml.add_bos_token`
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`
    pub add_space_prefix: Option<bool>,
    /// Chat templates by name: `default` (`tokenizer.chat_template`) and others
    /// (`tokenizer.chat_template.NAME`).
    pub chat_templates: Vec<(String, String)>,
    /// File that messages about its chat templates name; may be empty.
    pub file: PathBuf,
}

impl GgufTokenizer {
    /// Reads the tokenizer from the file at `path`.
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        Self::from_metadata(&Gguf::open(path)?.metadata)
    }

    /// Reads the tokenizer from the metadata of an open file.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, FormatError> {
        let missing = |key: &'static str| || metadata.error(key, "is missing");
        let texts = |key| metadata.list(key, |value| value.as_text().map(str::to_owned));
        let (model, tokens) = ("tokenizer.ggml.model", "tokenizer.ggml.tokens");
        let kind = |value: &Value| i32::try_from(value.as_integer()?).ok();
        let score = |value: &Value| value.as_float().map(|score| score as f32);
        Ok(Self {
            model: metadata.text(model)?.ok_or_else(missing(model))?.into(),
            pre: metadata
                .text("tokenizer.ggml.pre")?
                .unwrap_or("default")
                .into(),
            tokens: texts(tokens)?.ok_or_else(missing(tokens))?,
            token_types: metadata
                .list("tokenizer.ggml.token_type", kind)?
                .unwrap_or_default(),
            scores: metadata
                .list("tokenizer.ggml.scores", score)?
                .unwrap_or_default(),
            merges: texts("tokenizer.ggml.merges")?.unwrap_or_default(),
            bos_id: metadata.id("tokenizer.ggml.bos_token_id")?,
            eos_id: metadata.id("tokenizer.ggml.eos_token_id")?,
            unknown_id: metadata.id("tokenizer.ggml.unknown_token_id")?,
            pad_id: metadata.id("tokenizer.ggml.padding_token_id")?,
            end_ids: end_ids(metadata)?,
            add_bos: metadata.flag("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.flag("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: metadata.flag("tokenizer.ggml.add_space_prefix")?,
            chat_templates: chat_templates(metadata)?,
            file: metadata.path().to_owned(),
        })
    }

    /// The metadata that a file with this tokenizer has; empty lists, absent ids and absent flags are
    /// left out. The first two ends are written as those of a turn and of a message, and all of them
    /// under the key of Ollama if there are more.
    pub fn to_metadata(&self) -> Vec<(String, Value)> {
        let mut all = vec![
            ("model".into(), Value::Text(self.model.clone())),
            ("pre".into(), Value::Text(self.pre.clone())),
            (
                "tokens".into(),
                Value::List(List::texts(texts(&self.tokens))),
            ),
        ];
        let mut list = |name: &str, list: List| {
            if !list.is_empty() {
                all.push((name.to_owned(), Value::List(list)));
            }
        };
        list("scores", List::f32s(self.scores.iter().copied()));
        list("token_type", List::i32s(self.token_types.iter().copied()));
        list("merges", List::texts(texts(&self.merges)));
        for (name, id) in [
            ("bos_token_id", self.bos_id),
            ("eos_token_id", self.eos_id),
            ("unknown_token_id", self.unknown_id),
            ("padding_token_id", self.pad_id),
            ("eot_token_id", self.end_ids.first().copied()),
            ("eom_token_id", self.end_ids.get(1).copied()),
        ] {
            all.extend(id.map(|id| (name.to_owned(), Value::U32(id))));
        }
        if self.end_ids.len() > 2 {
            let ids = List::i32s(self.end_ids.iter().map(|&id| id as i32));
            all.push(("eos_token_ids".into(), Value::List(ids)));
        }
        for (name, flag) in [
            ("add_bos_token", self.add_bos),
            ("add_eos_token", self.add_eos),
            ("add_space_prefix", self.add_space_prefix),
        ] {
            all.extend(flag.map(|flag| (name.to_owned(), Value::Bool(flag))));
        }
        let own = all.into_iter();
        let own = own.map(|(name, value)| (format!("tokenizer.ggml.{name}"), value));
        let templates = self.chat_templates.iter().map(|(name, source)| {
            let key = match name.as_str() {
                "default" => "tokenizer.chat_template".to_owned(),
                other => format!("tokenizer.chat_template.{other}"),
            };
            (key, Value::Text(source.clone()))
        });
        own.chain(templates).collect()
    }
}

fn texts(texts: &[String]) -> impl Iterator<Item = &str> {
    texts.iter().map(String::as_str)
}

/// Chat templates, each with its name.
fn chat_templates(metadata: &Metadata) -> Result<Vec<(String, String)>, FormatError> {
    let mut templates = Vec::new();
    for (key, _) in metadata.iter() {
        let rest = key.strip_prefix("tokenizer.chat_template");
        let name = rest.and_then(|rest| match rest {
            "" => Some("default"),
            _ => rest.strip_prefix('.'),
        });
        let Some(name) = name else {
            continue;
        };
        if let Some(source) = metadata.text(key)? {
            templates.push((name.to_owned(), source.to_owned()));
        }
    }
    Ok(templates)
}

/// Largest number of ids in one list of ends.
const MOST_ENDS: usize = 1 << 10;

/// Ids that end a turn, a message or a text besides `eos_token_id`: an id or a list under each key;
/// Ollama writes the last key.
pub fn end_ids(metadata: &Metadata) -> Result<Vec<u32>, FormatError> {
    let keys = [
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.eos_token_ids",
    ];
    let mut ids = Vec::new();
    for key in keys {
        let values = match metadata.get(key) {
            None => continue,
            Some(Value::List(list)) if list.len() <= MOST_ENDS => list.iter().collect(),
            Some(one) => vec![one.clone()],
        };
        for value in values {
            let wrong = || metadata.error(key, "expected token ids");
            ids.push(value.as_id().ok_or_else(wrong)?);
        }
    }
    Ok(ids)
}
