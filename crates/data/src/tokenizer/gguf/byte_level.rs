//! Byte-level BPE of a GGUF file: patterns split the text, and pairs of bytes are merged.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::{Built, failed, gguf};
use crate::error::DataError;
use tightrope_formats::gguf::GgufTokenizer;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Rules of a name of `tokenizer.ggml.pre` for splitting text.
struct Pre {
    /// Patterns that are applied one after the other, each to the pieces of the one before.
    patterns: &'static [&'static str],
    /// Whether a piece that is a token as a whole is not merged.
    ignore_merges: bool,
    /// Whether BOS comes first if the file does not say.
    add_bos: bool,
    /// Whether the original tokenizer composes characters first.
    nfc: bool,
}

/// Names and patterns of llama.cpp's `llama-vocab.cpp`, for the supported families of models. Its
/// patterns are unions of matches, with an implied `\s+` at their ends.
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

/// Whether a name of a way to split text is known.
pub(super) fn knows(name: &str) -> bool {
    pre(name).is_some()
}

pub(super) fn build(g: &GgufTokenizer) -> Result<Built, DataError> {
    let pre = pre(&g.pre).ok_or_else(|| {
        gguf(format!(
            "unknown pre-tokenizer `{}`; use a folder with tokenizer.json",
            g.pre
        ))
    })?;
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
    Ok(Built {
        inner,
        add_bos: pre.add_bos,
    })
}

fn splitter(pre: &Pre) -> Result<Sequence, DataError> {
    let mut steps = Vec::new();
    for pattern in pre.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    // Maps bytes to the letters that represent them; splitting is done.
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(
        false, true, false,
    )));
    Ok(Sequence::new(steps))
}
