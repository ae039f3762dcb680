//! Tokenizers from a Hugging Face folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Tokenizer, token_text};
use crate::error::DataError;
use crate::template::ChatTemplate;

impl Tokenizer {
    /// Reads `tokenizer.json` and, where they exist, `tokenizer_config.json`,
    /// `special_tokens_map.json` (for what the former leaves out), `chat_template.jinja` (which
    /// wins over a template in the configuration; of several named ones there, `default` is
    /// taken), and the end-of-text ids of `generation_config.json` and `config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DataError::TokenizerFile {
                path: path.clone(),
                message: "not found; only tokenizers in this form are read".to_owned(),
            },
            _ => DataError::Io {
                path: path.clone(),
                source: error,
            },
        })?;
        let inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| DataError::TokenizerFile {
                path: path.clone(),
                message: e.to_string(),
            })?;
        let mut config = object(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        if let Some(map) = object(&folder.join("special_tokens_map.json"))? {
            for (key, value) in map {
                if config.get(&key).is_none_or(Value::is_null) {
                    config.insert(key, value);
                }
            }
        }
        let template = template(folder, &config)?;
        let mut ends = Vec::new();
        for name in ["generation_config.json", "config.json"] {
            if let Some(file) = object(&folder.join(name))? {
                ends.extend(ids(file.get("eos_token_id")));
            }
        }
        Self::assemble(inner, config, template, &ends)
    }
}

/// A file that holds a JSON object, if there is one.
fn object(path: &Path) -> Result<Option<Map<String, Value>>, DataError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io(path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| DataError::TokenizerFile {
            path: path.to_owned(),
            message: e.to_string(),
        })
}

/// One id or a list of them.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn template(folder: &Path, config: &Map<String, Value>) -> Result<Option<ChatTemplate>, DataError> {
    let path = folder.join("chat_template.jinja");
    match fs::read_to_string(&path) {
        Ok(source) => return ChatTemplate::compile(&source).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(DataError::io(path)(error)),
    }
    match config.get("chat_template") {
        Some(Value::String(source)) => ChatTemplate::compile(source).map(Some),
        Some(Value::Array(named)) => {
            let field =
                |entry: &Value, key: &str| entry.get(key).and_then(token_text).map(str::to_owned);
            let default = named
                .iter()
                .find(|entry| field(entry, "name").as_deref() == Some("default"))
                .and_then(|entry| field(entry, "template"));
            match default {
                Some(source) => ChatTemplate::compile(&source).map(Some),
                None => Err(DataError::TokenizerFile {
                    path: folder.join("tokenizer_config.json"),
                    message: "`chat_template` has several templates but none named `default`"
                        .to_owned(),
                }),
            }
        }
        _ => Ok(None),
    }
}
