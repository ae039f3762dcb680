//! Tokenizers from the metadata of a GGUF file, and back.

mod byte_level;
mod sentencepiece;
mod written;

use std::collections::HashSet;

use serde_json::{Map, Value};
use tightrope_formats::gguf::GgufTokenizer;
use tokenizers::AddedToken;
use tokenizers::processors::template::TemplateProcessing;

use super::Tokenizer;
use crate::error::DataError;
use crate::template::ChatTemplates;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// A tokenizer without added tokens and post-processor.
struct Built {
    inner: tokenizers::Tokenizer,
    /// Whether BOS comes first if the file does not say.
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
        let mut tokenizer = Self::assemble(inner, config, templates, &g.end_ids)?;
        tokenizer.pre = (g.model == "gpt2").then_some(g.pre);
        Ok(tokenizer)
    }
}

/// Checks the ids and types that later code relies on.
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
