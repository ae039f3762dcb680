//! Writes tokenizers to a folder that Transformers loads.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tightrope_formats::files;

use super::Tokenizer;
use crate::error::DataError;
use crate::template::ChatTemplates;

impl Tokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json` and the chat templates into an existing
    /// folder; replaces existing files, each whole or not at all.
    pub fn save_to_folder(&self, folder: &Path) -> Result<(), DataError> {
        let mut inner = self.inner.clone();
        inner.with_post_processor(self.post_processor.clone());
        let tokenizer = inner.to_string(true).map_err(|e| DataError::Tokenize {
            message: e.to_string(),
        })?;
        write(&folder.join("tokenizer.json"), tokenizer.as_bytes())?;
        let mut config = self.config.clone();
        config.remove("chat_template");
        config
            .entry("tokenizer_class")
            .or_insert_with(|| "PreTrainedTokenizerFast".into());
        let config = serde_json::to_string_pretty(&Value::Object(config))
            .map_err(|e| DataError::io(folder)(e.into()))?;
        write(&folder.join("tokenizer_config.json"), config.as_bytes())?;
        self.save_chat_templates(folder)
    }

    /// Everything that decides which ids a text becomes, as text: equal for equal tokenizers.
    pub fn identity(&self) -> Result<String, DataError> {
        let inner = self
            .inner
            .to_string(false)
            .map_err(|e| DataError::Tokenize {
                message: e.to_string(),
            })?;
        let templates = self.templates.iter().flat_map(ChatTemplates::files);
        let templates: Vec<_> = templates
            .map(|(name, source)| json!([name, source]))
            .collect();
        let around = json!([self.prefix, self.suffix, self.end_ids, self.vocab_size]);
        let ids = json!([self.bos_id(), self.eos_id(), self.pad_id()]);
        let texts = self.special_texts();
        Ok(json!([inner, around, ids, texts, templates]).to_string())
    }

    /// Writes the chat templates alone, under the file names of Transformers.
    pub fn save_chat_templates(&self, folder: &Path) -> Result<(), DataError> {
        for (name, source) in self.templates.iter().flat_map(ChatTemplates::files) {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(DataError::io(parent))?;
            }
            write(&path, source.as_bytes())?;
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    files::write(path, bytes).map_err(DataError::io(path))
}
