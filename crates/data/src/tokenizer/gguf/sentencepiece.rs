//! SentencePiece of a GGUF file (BPE by scores, as in Llama 2, Mistral and Gemma), with the results
//! of llama.cpp.
//!
//! Among all neighbours whose union is a token, those with the best score are joined first. As a
//! list of merges, which `tokenizer.json` can hold and Transformers makes too, this is every
//! division of a token into two others, ordered by its score.

use std::collections::HashSet;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::{DecoderWrapper, NormalizerWrapper};

use super::{BYTE, Built, CONTROL, UNKNOWN, failed, gguf};
use crate::error::DataError;
use tightrope_formats::gguf::GgufTokenizer;

/// The character that represents a space.
const SPACE: &str = "▁";

/// Longer tokens are refused: each is divided at each of its characters.
const MAX_TOKEN_BYTES: usize = 1024;

pub(super) fn build(g: &GgufTokenizer) -> Result<Built, DataError> {
    let (scores, tokens) = (g.scores.len(), g.tokens.len());
    if scores != tokens {
        return Err(gguf(format!(
            "{scores} scores for {tokens} tokens, but each token of the model `llama` needs one; \
             use a folder with tokenizer.json"
        )));
    }
    let vocab: Vocab = g.tokens.iter().cloned().zip(0..).collect();
    let by_bytes = (0..=255_u8).all(|byte| vocab.contains_key(&format!("<0x{byte:02X}>")));
    let unknown = g.unknown_id.map(|id| id as usize);
    let unknown = unknown.or_else(|| g.token_types.iter().position(|&kind| kind == UNKNOWN));
    let mut bpe = BPE::builder()
        .vocab_and_merges(vocab, merges(g)?)
        .fuse_unk(true)
        .byte_fallback(by_bytes);
    match unknown {
        Some(id) => bpe = bpe.unk_token(g.tokens[id].clone()),
        None if by_bytes => {}
        None => {
            return Err(gguf(
                "the vocabulary has neither a token for each byte nor one for unknown text; \
                 use a folder with tokenizer.json",
            ));
        }
    }
    let mut inner = tokenizers::Tokenizer::new(bpe.build().map_err(failed)?);
    let prefix = g.add_space_prefix.unwrap_or(true);
    let mut normalizers = Vec::new();
    let mut decoders: Vec<DecoderWrapper> = Vec::new();
    if prefix {
        normalizers.push(NormalizerWrapper::from(Prepend::new(SPACE.to_owned())));
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(failed)?.into());
    decoders.push(Replace::new(SPACE, " ").map_err(failed)?.into());
    decoders.push(ByteFallback::new().into());
    decoders.push(Fuse::new().into());
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    let normalizer = NormalizerWrapper::from(Normalizers::new(normalizers));
    inner.with_normalizer(Some(normalizer)).map_err(failed)?;
    inner.with_decoder(Some(Decoders::new(decoders)));
    Ok(Built {
        inner,
        add_bos: true,
    })
}

/// Every division of a token into two others, the best score first.
fn merges(g: &GgufTokenizer) -> Result<Vec<(String, String)>, DataError> {
    let is_text = |id: usize| {
        let kind = g.token_types.get(id);
        kind.is_none_or(|kind| ![UNKNOWN, CONTROL, BYTE].contains(kind))
    };
    let pieces = || {
        let tokens = g.tokens.iter().map(String::as_str).enumerate();
        tokens.filter(|(id, _)| is_text(*id))
    };
    let known: HashSet<&str> = pieces().map(|(_, token)| token).collect();
    let mut divisions = Vec::new();
    for (id, token) in pieces() {
        let score = g.scores[id];
        if score.is_nan() || token.len() > MAX_TOKEN_BYTES {
            let bytes = token.len();
            return Err(gguf(format!(
                "token {id} has {bytes} bytes and the score {score}; use a folder with tokenizer.json"
            )));
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if known.contains(left) && known.contains(right) {
                divisions.push((score, id, left, right));
            }
        }
    }
    divisions.sort_by(|(score, id, ..), (other, other_id, ..)| {
        let by_score = other.total_cmp(score);
        by_score.then(id.cmp(other_id))
    });
    let owned = |(_, _, left, right): (f32, usize, &str, &str)| (left.to_owned(), right.to_owned());
    Ok(divisions.into_iter().map(owned).collect())
}
