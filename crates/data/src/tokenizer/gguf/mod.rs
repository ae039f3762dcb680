//! Tokenizers from the metadata of a GGUF file.

mod byte_level;
mod sentencepiece;

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::{Map, Value};
use tokenizers::AddedToken;
use tokenizers::processors::template::TemplateProcessing;

use super::Tokenizer;
use crate::error::DataError;
use crate::template::ChatTemplates;

/// The `tokenizer.*` metadata of a GGUF file; the name of each key is in brackets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokenizer {
    /// Kind of tokenizer (`tokenizer.ggml.model`): `gpt2`, byte-level BPE, and `llama`,
    /// SentencePiece, are known.
    pub model: String,
    /// Name of the way text is split before merging (`tokenizer.ggml.pre`).
    pub pre: String,
    /// Spelling of each id (`tokenizer.ggml.tokens`).
    pub tokens: Vec<String>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    /// (`tokenizer.ggml.token_type`); empty = all normal.
    pub token_types: Vec<i32>,
    /// Of each token, the best first to be merged (`tokenizer.ggml.scores`).
    pub scores: Vec<f32>,
    /// Pairs with a space between them, the most important first (`tokenizer.ggml.merges`).
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
    /// The file, which messages about its chat templates name; may be empty.
    pub file: PathBuf,
}

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A tokenizer without added tokens and post-processor.
struct Built {
    inner: tokenizers::Tokenizer,
    /// Whether BOS goes first if the file does not say.
    add_bos: bool,
}

fn gguf(message: impl Into<String>) -> DataError {
    DataError::Gguf {
        message: message.into(),
    }
}

fn failed(error: tokenizers::Error) -> DataError {
    gguf(error.to_string())
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata of a GGUF file describes.
    pub fn from_gguf(gguf_tokenizer: GgufTokenizer) -> Result<Self, DataError> {
        let g = gguf_tokenizer;
        let build = match g.model.as_str() {
            "gpt2" => byte_level::build,
            "llama" => sentencepiece::build,
            other => {
                return Err(gguf(format!(
                    "model `{other}` is not supported, only `gpt2` (byte-level BPE) and `llama` \
                     (SentencePiece); use a folder with tokenizer.json"
                )));
            }
        };
        check(&g)?;
        let built = build(&g)?;
        let mut inner = built.inner;
        add_tokens(&mut inner, &g)?;
        let add_bos = g.add_bos.unwrap_or(built.add_bos);
        let add_eos = g.add_eos.unwrap_or(false);
        let text = |id: Option<u32>| id.map(|id| g.tokens[id as usize].clone());
        let (bos, eos) = (text(g.bos_id), text(g.eos_id));
        around(
            &mut inner,
            bos.clone().filter(|_| add_bos),
            eos.clone().filter(|_| add_eos),
        )?;
        let mut config = Map::new();
        for (key, token) in [
            ("bos_token", bos),
            ("eos_token", eos),
            ("unk_token", text(g.unknown_id)),
            ("pad_token", text(g.pad_id)),
        ] {
            if let Some(token) = token {
                config.insert(key.to_owned(), Value::String(token));
            }
        }
        let templates = ChatTemplates::from_file(&g.file, g.chat_templates)?;
        Self::assemble(inner, config, templates, &g.end_ids)
    }
}

/// Ids and types that the rest relies on.
fn check(g: &GgufTokenizer) -> Result<(), DataError> {
    let n = g.tokens.len();
    if !g.token_types.is_empty() && g.token_types.len() != n {
        return Err(gguf(format!(
            "{} token types for {n} tokens",
            g.token_types.len()
        )));
    }
    let named = [
        ("bos", g.bos_id),
        ("eos", g.eos_id),
        ("unknown", g.unknown_id),
        ("padding", g.pad_id),
    ];
    let ends = g.end_ids.iter().map(|&id| ("end", Some(id)));
    for (name, id) in named.into_iter().chain(ends) {
        if let Some(id) = id.filter(|&id| id as usize >= n) {
            return Err(gguf(format!(
                "{name} token id {id} is outside the vocabulary of {n}"
            )));
        }
    }
    let mut seen = HashSet::with_capacity(n);
    match g.tokens.iter().position(|token| !seen.insert(token)) {
        Some(id) => Err(gguf(format!(
            "token {id}, {:?}, occurs twice",
            g.tokens[id]
        ))),
        None => Ok(()),
    }
}

/// Control, unknown and user-defined tokens are found in text before it is split.
fn add_tokens(inner: &mut tokenizers::Tokenizer, g: &GgufTokenizer) -> Result<(), DataError> {
    let tokens = g.tokens.iter().zip(&g.token_types);
    let added = tokens.filter_map(|(text, &kind)| {
        let special = matches!(kind, CONTROL | UNKNOWN);
        let added = special || kind == USER_DEFINED;
        added.then(|| AddedToken::from(text.clone(), special).normalized(false))
    });
    inner.add_tokens(added).map(drop).map_err(failed)
}

fn around(
    inner: &mut tokenizers::Tokenizer,
    bos: Option<String>,
    eos: Option<String>,
) -> Result<(), DataError> {
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    let mut single = Vec::new();
    single.extend(bos.clone());
    single.push("$A".to_owned());
    single.extend(eos.clone());
    let ids = bos.into_iter().chain(eos);
    let ids: Vec<(String, u32)> = ids
        .filter_map(|token| inner.token_to_id(&token).map(|id| (token, id)))
        .collect();
    let template = TemplateProcessing::builder()
        .try_single(single)
        .map_err(gguf)?
        .special_tokens(ids)
        .build()
        .map_err(|error| gguf(error.to_string()))?;
    inner.with_post_processor(Some(template));
    Ok(())
}
