//! New tokens: those that a run adds to the model's tokenizer, and those of an adapter.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::{AddedToken, Model};

use super::special::END_TOKENS;
use super::{Tokenizer, library};
use crate::error::DataError;

impl Tokenizer {
    /// Adds a token, which is found in a text before anything else; a special one is left out of
    /// decoded text. Returns its id if the tokenizer did not have it: the next one, as in
    /// Transformers.
    ///
    /// # Errors
    /// If the text is an ordinary entry of the vocabulary, which words are made of.
    pub fn add_token(&mut self, token: &str, special: bool) -> Result<Option<u32>, DataError> {
        if let Some(id) = self
            .inner
            .token_to_id(token)
            .filter(|id| !self.is_added(*id))
        {
            let message = format!(
                "`{token}` is already an entry of the vocabulary (id {id}), which words are made of: as \
                 a token of its own it would be found inside them; choose another text, or train its \
                 row with `lora.trainable_token_indices`"
            );
            return Err(DataError::Tokenize { message });
        }
        self.insert(token, special)
    }

    /// Whether an id is of an added token, which is found before anything else.
    fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().contains_key(&id)
    }

    fn insert(&mut self, token: &str, special: bool) -> Result<Option<u32>, DataError> {
        let known = self.inner.token_to_id(token);
        let added = AddedToken::from(token, special);
        let inner = &mut self.inner;
        library(|| inner.add_tokens([added.clone()]))?;
        let Some(id) = self.inner.token_to_id(token) else {
            let message = format!("the token `{token}` cannot be added");
            return Err(DataError::Tokenize { message });
        };
        if known.is_none()
            && let Some(other) = self.inner.get_model().id_to_token(id)
        {
            let message = format!(
                "the token `{token}` would get the id {id}, which `{other}` has: give that token in \
                 tokenizer.json an id without gaps before it"
            );
            return Err(DataError::Tokenize { message });
        }
        if special && END_TOKENS.contains(&token) {
            self.end_ids.push(id);
            self.end_ids.sort_unstable();
            self.end_ids.dedup();
        }
        // Transformers reads added tokens here too, where older files list them.
        let listed = self.config.get_mut("added_tokens_decoder");
        if let Some(listed) = listed.and_then(Value::as_object_mut) {
            let token = json!({
                "content": token,
                "lstrip": false,
                "normalized": added.normalized,
                "rstrip": false,
                "single_word": false,
                "special": special,
            });
            listed.insert(id.to_string(), token);
        }
        self.vocab_size = self.vocab_size.max(id as usize + 1);
        self.has_new_tokens = true;
        Ok(known.is_none().then_some(id))
    }

    /// The tokenizer beside an adapter, if there is one.
    pub fn beside_adapter(adapter: &Path) -> Result<Option<Self>, DataError> {
        match adapter.join("tokenizer.json").is_file() {
            true => Self::from_folder(adapter).map(Some),
            false => Ok(None),
        }
    }

    /// Adds the tokens that the tokenizer beside an adapter has and this one lacks, in the order of
    /// their ids.
    ///
    /// # Errors
    /// If a token would have another id than there.
    pub fn add_tokens_of(&mut self, beside: &Self) -> Result<(), DataError> {
        let mut tokens: Vec<_> = beside
            .inner
            .get_added_tokens_decoder()
            .into_iter()
            .collect();
        tokens.sort_by_key(|(id, _)| *id);
        for (id, token) in tokens {
            let mut own = self.inner.token_to_id(&token.content);
            if own.is_none() || own == Some(id) && !self.is_added(id) {
                let new = self.insert(&token.content, token.special)?;
                own = own.or(new);
            }
            if own != Some(id) {
                let message = format!(
                    "the token `{}` has the id {id} in the tokenizer beside the adapter and {} in \
                     that of the model: the adapter belongs to another model",
                    token.content,
                    own.unwrap_or(id)
                );
                return Err(DataError::Tokenize { message });
            }
        }
        Ok(())
    }

    /// Whether the tokenizer has tokens that were added to that of the model.
    pub fn has_new_tokens(&self) -> bool {
        self.has_new_tokens
    }

    /// Writes what belongs beside an adapter into its folder: the chat templates, and the whole
    /// tokenizer if it has new tokens.
    pub fn save_beside_adapter(&self, folder: &Path) -> Result<(), DataError> {
        match self.has_new_tokens {
            true => self.save_to_folder(folder),
            false => self.save_chat_templates(folder),
        }
    }
}
