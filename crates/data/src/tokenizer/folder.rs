//! Reads tokenizers from a Hugging Face folder.

use std::path::Path;

use serde_json::{Map, Value};

use super::Tokenizer;
use super::added::{self, Listed};
use super::file::{load, object, wrong};
use crate::error::DataError;
use crate::template::ChatTemplates;

impl Tokenizer {
    /// Reads `tokenizer.json` and, if they exist, `tokenizer_config.json`, the older
    /// `special_tokens_map.json` and `added_tokens.json` (where the former lists no added tokens),
    /// the chat templates (`chat_template.jinja` and `additional_chat_templates/`, else those of
    /// the configuration), and the end-of-text ids of `generation_config.json` and `config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let mut inner = load(&path)?;
        let config_path = folder.join("tokenizer_config.json");
        let mut config = object(&config_path)?.unwrap_or_default();
        let listed = match config.get("added_tokens_decoder") {
            Some(decoder) => {
                added::listed_in_config(decoder).map_err(|message| wrong(&config_path, message))?
            }
            None => older_files(folder, &mut config)?,
        };
        let notes = added::add(&mut inner, &config, listed)
            .map_err(|message| wrong(&config_path, message))?;
        let templates = ChatTemplates::from_folder(folder, &config)?;
        let mut ends = Vec::new();
        let mut rows = None;
        for name in ["generation_config.json", "config.json"] {
            if let Some(file) = object(&folder.join(name))? {
                ends.extend(ids(file.get("eos_token_id")));
                let size = file.get("vocab_size");
                let size = size.or_else(|| file.get("text_config")?.get("vocab_size"));
                rows = rows.or(size.and_then(Value::as_u64));
            }
        }
        let mut tokenizer =
            Self::assemble(inner, config, templates, &ends).map_err(|error| match error {
                DataError::Tokenize { message } => wrong(&path, message),
                other => other,
            })?;
        tokenizer.notes = notes;
        if let Some(rows) = rows {
            let fits = |message| wrong(&config_path, message);
            tokenizer.fit_to(rows).map_err(fits)?;
        }
        Ok(tokenizer)
    }

    /// Checks the special tokens around texts against the rows of the model's embedding.
    fn fit_to(&mut self, rows: u64) -> Result<(), String> {
        let outside = |id: &u32| u64::from(*id) >= rows;
        // Padding is known by its place, and the token only has a name.
        self.special.pad = self.special.pad.filter(|id| !outside(id));
        let around = self.prefix.iter().chain(&self.suffix);
        let begin = around.copied().find(outside);
        for (key, id) in [("eos_token", self.special.eos), ("bos_token", begin)] {
            if let Some(id) = id.filter(outside) {
                let text = self.id_to_token(id).unwrap_or_default();
                return Err(format!(
                    "`{key}`: `{text}` has the id {id}, and the model has no embedding for it (the \
                     `vocab_size` of config.json is {rows}); name a token that the model knows"
                ));
            }
        }
        Ok(())
    }
}

/// Reads `special_tokens_map.json` into `config`, and `added_tokens.json`.
fn older_files(folder: &Path, config: &mut Map<String, Value>) -> Result<Listed, DataError> {
    let extra = ["additional_special_tokens", "extra_special_tokens"];
    if let Some(map) = object(&folder.join("special_tokens_map.json"))? {
        let has_extra = extra.iter().any(|key| config.contains_key(*key));
        for (key, value) in map {
            if !(has_extra && extra.contains(&key.as_str())) {
                config.insert(key, value);
            }
        }
    }
    let path = folder.join("added_tokens.json");
    let Some(file) = object(&path)? else {
        return Ok(Listed::new());
    };
    added::listed_in_file(&file, config).map_err(|message| wrong(&path, message))
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
