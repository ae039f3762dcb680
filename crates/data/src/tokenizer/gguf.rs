//! Byte-level BPE tokenizers from the metadata of a GGUF file.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::Tokenizer;
use crate::error::DataError;
use crate::template::ChatTemplate;

/// The `tokenizer.*` metadata of a GGUF file; the name of each key is in brackets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokenizer {
    /// Kind of tokenizer (`tokenizer.ggml.model`); only `gpt2`, byte-level BPE, is known.
    pub model: String,
    /// Name of the way text is split before merging (`tokenizer.ggml.pre`).
    pub pre: String,
    /// Spelling of each id (`tokenizer.ggml.tokens`).
    pub tokens: Vec<String>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    /// (`tokenizer.ggml.token_type`); empty = all normal.
    pub token_types: Vec<i32>,
    /// Pairs with a space between them, the most important first (`tokenizer.ggml.merges`).
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`
    pub bos_id: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`
    pub eos_id: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`
    pub pad_id: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`
    pub add_eos: Option<bool>,
    /// `tokenizer.chat_template`
    pub chat_template: Option<String>,
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a name of `tokenizer.ggml.pre` splits text.
struct Pre {
    /// Applied one after the other, each to the pieces of the one before.
    patterns: &'static [&'static str],
    /// A piece that is a token as a whole is not merged.
    ignore_merges: bool,
    /// Whether BOS goes first if the file does not say.
    add_bos: bool,
    /// Whether the original tokenizer composes characters first.
    nfc: bool,
}

/// The names and patterns of llama.cpp's `llama-vocab.cpp`, for the families of models that are
/// trained here. Its patterns are unions of matches; `\s+` at their ends is implied there.
fn pre(name: &str) -> Option<Pre> {
    let plain = |patterns| Pre {
        patterns,
        ignore_merges: false,
        add_bos: false,
        nfc: false,
    };
    Some(match name {
        "" | "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        "gpt-2" | "phi-2" | "olmo" | "mpt" | "jais" | "exaone4" | "trillion" | "mellum"
        | "granite-docling" | "modern-bert" => plain(&[GPT2]),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            plain(&[r"\p{N}", GPT2])
        }
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" => Pre {
            patterns: &[LLAMA3],
            ignore_merges: true,
            add_bos: true,
            nfc: false,
        },
        "smaug-bpe" | "dbrx" | "chatglm-bpe" | "glm4" => plain(&[LLAMA3]),
        "qwen2" | "deepseek-r1-qwen" | "megrez" => Pre {
            nfc: true,
            ..plain(&[QWEN2])
        },
        "stablelm2" | "hunyuan" => plain(&[QWEN2]),
        "tekken" => Pre {
            patterns: &[TEKKEN],
            ignore_merges: true,
            add_bos: true,
            nfc: false,
        },
        "gpt-4o" | "llama4" => plain(&[GPT4O]),
        _ => return None,
    })
}

fn gguf(message: impl Into<String>) -> DataError {
    DataError::Gguf {
        message: message.into(),
    }
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata of a GGUF file describes.
    pub fn from_gguf(gguf_tokenizer: GgufTokenizer) -> Result<Self, DataError> {
        let g = gguf_tokenizer;
        let failed = |e: tokenizers::Error| gguf(e.to_string());
        if g.model != "gpt2" {
            return Err(gguf(format!(
                "model `{}` is not supported, only byte-level BPE (`gpt2`); use a folder with tokenizer.json",
                g.model
            )));
        }
        let pre = pre(&g.pre).ok_or_else(|| {
            gguf(format!(
                "unknown pre-tokenizer `{}`; use a folder with tokenizer.json",
                g.pre
            ))
        })?;
        check(&g)?;
        let vocab: Vocab = g.tokens.iter().cloned().zip(0..).collect();
        let merges = g
            .merges
            .iter()
            .enumerate()
            .map(|(index, merge)| {
                let pair = merge.split_once(' ');
                let pair = pair.filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' '));
                pair.map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .ok_or_else(|| gguf(format!("merge {index}, {merge:?}, is not two tokens")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(pre.ignore_merges)
            .build()
            .map_err(failed)?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(splitter(&pre)?));
        inner.with_decoder(Some(ByteLevel::default()));
        if pre.nfc {
            inner
                .with_normalizer(Some(NormalizerWrapper::from(NFC)))
                .map_err(failed)?;
        }
        add_tokens(&mut inner, &g)?;
        let (add_bos, add_eos) = (g.add_bos.unwrap_or(pre.add_bos), g.add_eos.unwrap_or(false));
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
            ("pad_token", text(g.pad_id)),
        ] {
            if let Some(token) = token {
                config.insert(key.to_owned(), Value::String(token));
            }
        }
        let template = g.chat_template.as_deref().map(ChatTemplate::compile);
        Self::assemble(inner, config, template.transpose()?, &[])
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
    for (name, id) in [("bos", g.bos_id), ("eos", g.eos_id), ("padding", g.pad_id)] {
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

fn splitter(pre: &Pre) -> Result<Sequence, DataError> {
    let mut steps = Vec::new();
    for pattern in pre.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| gguf(e.to_string()))?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    // Bytes to the letters that stand for them; splitting is done.
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(
        false, true, false,
    )));
    Ok(Sequence::new(steps))
}

/// Control and user-defined tokens are found in text before it is split.
fn add_tokens(inner: &mut tokenizers::Tokenizer, g: &GgufTokenizer) -> Result<(), DataError> {
    let of_kind = |kind| {
        let tokens = g.tokens.iter().zip(&g.token_types);
        tokens
            .filter(move |(_, t)| **t == kind)
            .map(move |(text, _)| AddedToken::from(text.clone(), kind == CONTROL).normalized(false))
    };
    inner
        .add_tokens(of_kind(USER_DEFINED))
        .and_then(|_| inner.add_special_tokens(of_kind(CONTROL)))
        .map(drop)
        .map_err(|e| gguf(e.to_string()))
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
        .map_err(|e| gguf(e.to_string()))?;
    inner.with_post_processor(Some(template));
    Ok(())
}
