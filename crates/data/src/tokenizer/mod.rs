//! Converts text to token ids and back, with special tokens and the chat template.

mod added;
mod file;
mod folder;
mod gguf;
mod new;
mod save;
mod special;

use std::ops::Range;

use serde_json::{Map, Value};

use special::{END_TOKENS, Special};

use crate::error::DataError;
use crate::guard::guarded;
use crate::template::{ChatTemplate, ChatTemplates};

/// A tokenizer with its special tokens and chat template.
pub struct Tokenizer {
    /// The tokenizer without truncation, padding and post-processor: all three are applied here or
    /// not at all.
    inner: tokenizers::Tokenizer,
    post_processor: Option<tokenizers::PostProcessorWrapper>,
    /// Tokens before a text that is encoded with special tokens.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    special: Special,
    end_ids: Vec<u32>,
    vocab_size: usize,
    templates: Option<ChatTemplates>,
    /// `tokenizer_config.json` as read or made.
    config: Map<String, Value>,
    notes: Vec<String>,
    /// Whether tokens were added to those of the model.
    has_new_tokens: bool,
    /// Name of its way to split text in the GGUF file that it comes from.
    pre: Option<String>,
}

/// A token, with the bytes of the text that it represents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Id of the token.
    pub id: u32,
    /// Byte range of the token; a token that is part of a character has the whole character.
    pub bytes: Range<usize>,
}

impl Tokenizer {
    /// Token ids of a text. With `add_special`, BOS and EOS are added as the tokenizer's files say,
    /// but a BOS or EOS that the text already has is not doubled.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, DataError> {
        let encoding = library(|| self.inner.encode_fast(text, false))?;
        let ids = encoding.get_ids();
        if !add_special {
            return Ok(ids.to_vec());
        }
        let (prefix, suffix) = self.around(ids);
        Ok([prefix, ids, suffix].concat())
    }

    /// Token ids with their bytes, without special tokens around them.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<Token>, DataError> {
        let encoding = library(|| self.inner.encode(text, false))?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(tokens
            .map(|(&id, &(start, end))| Token {
                id,
                bytes: start..end,
            })
            .collect())
    }

    /// Special tokens before and after `ids`.
    pub(crate) fn around(&self, ids: &[u32]) -> (&[u32], &[u32]) {
        let doubled_bos = !self.prefix.is_empty() && ids.starts_with(&self.prefix);
        let doubled_eos = !self.suffix.is_empty() && ids.ends_with(&self.suffix);
        (
            if doubled_bos { &[] } else { &self.prefix },
            if doubled_eos { &[] } else { &self.suffix },
        )
    }

    /// Text of token ids; special tokens are left out on request.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, DataError> {
        library(|| self.inner.decode(ids, skip_special))
    }

    /// Decodes token by token, for generation and inspection; special tokens are kept.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream {
            inner: self.inner.decode_stream(false),
        }
    }

    /// Spelling of the token (byte-level if the tokenizer is), if it has one.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its spelling.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
    /// Id of the beginning-of-text token.
    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos
    }
    /// Id of the configured end-of-text token.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos
    }
    /// Id of the padding token; it may equal another id.
    pub fn pad_id(&self) -> Option<u32> {
        self.special.pad
    }
    /// Every id that ends a turn or a text, sorted: generation stops at these.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }
    /// The chat template for conversations without tools.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.templates.as_ref().map(|all| all.choose(false))
    }
    /// The chat templates of the tokenizer's files.
    pub fn chat_templates(&self) -> Option<&ChatTemplates> {
        self.templates.as_ref()
    }
    /// Replaces all chat templates, for rendering and for saving.
    pub fn set_chat_template(&mut self, templates: impl Into<ChatTemplates>) {
        self.templates = Some(templates.into());
    }
    /// Notes for the user about the tokenizer's files.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
    /// `bos_token`, `eos_token` and so on as text, as templates receive them.
    pub fn special_texts(&self) -> &Map<String, Value> {
        &self.special.texts
    }

    /// Spellings of [`end_ids`](Self::end_ids).
    pub(crate) fn end_texts(&self) -> Vec<String> {
        let texts = self.end_ids.iter().filter_map(|&id| self.id_to_token(id));
        texts.collect()
    }

    /// Finishes a tokenizer whose parts have been read.
    pub(crate) fn assemble(
        mut inner: tokenizers::Tokenizer,
        config: Map<String, Value>,
        templates: Option<ChatTemplates>,
        more_end_ids: &[u32],
    ) -> Result<Self, DataError> {
        // A file may ask for truncation or padding, but neither may happen unnoticed.
        library(|| inner.with_truncation(None).map(drop))?;
        inner.with_padding(None);
        let (prefix, suffix) = library(|| probe(&inner))?;
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let mut special = Special::new(&inner, &config);
        // If the tokenizer names no end token but the model has one, training ends texts with it
        // too.
        special.eos = special.eos.or_else(|| more_end_ids.first().copied());
        let mut end_ids: Vec<u32> = special.eos.into_iter().collect();
        end_ids.extend(more_end_ids);
        for (id, added) in inner.get_added_tokens_decoder() {
            if added.special && END_TOKENS.contains(&added.content.as_str()) {
                end_ids.push(id);
            }
        }
        end_ids.sort_unstable();
        end_ids.dedup();
        let largest = inner.get_vocab(true).into_values().max();
        let mut tokenizer = Self {
            inner,
            post_processor,
            prefix,
            suffix,
            special,
            end_ids,
            vocab_size: largest.map_or(0, |id| id as usize + 1),
            templates,
            config,
            notes: Vec::new(),
            has_new_tokens: false,
            pre: None,
        };
        tokenizer.apply_flags();
        Ok(tokenizer)
    }

    /// `add_bos_token` and `add_eos_token`, if they are set, override the post-processor.
    fn apply_flags(&mut self) {
        let flag = |key: &str| self.config.get(key).and_then(Value::as_bool);
        if let (Some(add), Some(bos)) = (flag("add_bos_token"), self.special.bos) {
            self.prefix.retain(|&id| id != bos);
            if add {
                self.prefix.insert(0, bos);
            }
        }
        if let (Some(add), Some(eos)) = (flag("add_eos_token"), self.special.eos) {
            self.suffix.retain(|&id| id != eos);
            if add {
                self.suffix.push(eos);
            }
        }
    }
}

/// Calls the library, whose panics become errors.
fn library<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, DataError> {
    let message = match guarded(call) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => file::panicked(&panic),
    };
    Err(DataError::Tokenize { message })
}

/// Tokens that the post-processor puts around a text.
fn probe(inner: &tokenizers::Tokenizer) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let bare = inner.encode_fast("a", false)?;
    let full = inner.encode_fast("a", true)?;
    let (bare, full) = (bare.get_ids(), full.get_ids());
    let at = full
        .windows(bare.len().max(1))
        .position(|window| window == bare);
    Ok(match at {
        Some(at) => (full[..at].to_vec(), full[at + bare.len()..].to_vec()),
        None => (Vec::new(), Vec::new()),
    })
}

/// Text as its tokens arrive.
pub struct DecodeStream<'a> {
    inner: tokenizers::DecodeStream<
        'a,
        tokenizers::ModelWrapper,
        tokenizers::NormalizerWrapper,
        tokenizers::PreTokenizerWrapper,
        tokenizers::PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    >,
}

impl DecodeStream<'_> {
    /// The text that one more token adds; `None` while a character is unfinished.
    pub fn step(&mut self, id: u32) -> Result<Option<String>, DataError> {
        library(|| self.inner.step(id))
    }
}
