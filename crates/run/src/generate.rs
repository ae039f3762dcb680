//! Generates answers of a model token by token, with a cache of keys and values.

use crate::{RunError, Sampling};
use serde::Serialize;
use serde_json::Value;
use std::ops::ControlFlow;
use tightrope_data::{DataError, Tokenizer, Variables};
use tightrope_model::{Backend, Model};

/// Input that the model continues.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A text that is continued without changes.
    Text(String),
    /// A conversation, rendered by the chat template up to the start of the assistant's answer.
    Chat(Vec<Value>),
}

impl Prompt {
    /// Token ids.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, RunError> {
        match self {
            Prompt::Text(text) => {
                let mut tokens = tokenizer.encode(text, true)?;
                // Some tokenizers end every text, after which a model would not continue.
                let plain = tokenizer.encode(text, false)?;
                if tokens.last() != plain.last() && tokens.last().copied() == tokenizer.eos_id() {
                    tokens.pop();
                }
                Ok(tokens)
            }
            Prompt::Chat(messages) => {
                let template = tokenizer.chat_template();
                let template = template.ok_or(RunError::NoChatTemplate)?;
                let mut variables = Variables::new();
                for (name, text) in tokenizer.special_texts() {
                    variables.insert(name.clone(), text.clone());
                }
                let rendered = template.render(messages, None, true, &variables);
                let rendered = rendered.map_err(|error| DataError::Template {
                    name: template.name().to_owned(),
                    line: 0,
                    message: error.message,
                })?;
                Ok(tokenizer.encode(&rendered.text, false)?)
            }
        }
    }
}

/// Reason why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The model generated an end token.
    EndToken,
    /// The answer has the requested number of tokens.
    Length,
    /// The caller stopped.
    Stopped,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Token ids of the answer, without the end token.
    pub tokens: Vec<u32>,
    /// Reason why the answer ended.
    pub end: End,
}

/// Continues `prompt` by up to `max_tokens` tokens, or until one of `end_ids`. `on_token` gets each
/// token as it is generated. The same arguments give the same answer.
pub fn generate<D: Backend>(
    model: &mut Model<D>,
    prompt: &[u32],
    max_tokens: usize,
    sampling: &Sampling,
    end_ids: &[u32],
    mut on_token: impl FnMut(u32) -> Result<ControlFlow<()>, RunError>,
) -> Result<Generation, RunError> {
    let mut cache = model.cache(prompt.len() + max_tokens)?;
    let mut logits = model.prefill(&mut cache, prompt)?;
    let mut tokens = Vec::new();
    let end = loop {
        if tokens.len() == max_tokens {
            break End::Length;
        }
        let token = sampling.choose(&logits, tokens.len() as u64);
        let token = token.ok_or(RunError::NoLogits)?;
        if end_ids.contains(&token) {
            break End::EndToken;
        }
        tokens.push(token);
        if on_token(token)?.is_break() {
            break End::Stopped;
        }
        if tokens.len() < max_tokens {
            logits = model.decode(&mut cache, token)?;
        }
    };
    Ok(Generation { tokens, end })
}
