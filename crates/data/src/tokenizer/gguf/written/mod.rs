//! The tokenizer as GGUF files hold it, as llama.cpp's converter writes it.

mod names;
mod vocabulary;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tightrope_formats::{files::hexadecimal, gguf::GgufTokenizer};

use super::{BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, gguf};
use crate::error::DataError;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::special::END_TOKENS;

/// The text whose encoding tells ways to split text apart (`chktxt` of llama.cpp's converter).
#[rustfmt::skip]
const CHECK: &str = "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u{200d}🌫\u{fe0f} (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL";

/// Number of tokens of the vocabulary whose spellings are encoded again, to compare two tokenizers; one
/// in a thousand may differ.
const COMPARED: usize = 4096;

impl Tokenizer {
    /// The tokenizer as the metadata of a GGUF file for a model with `rows` rows in its embedding:
    /// rows without a token get `[PAD…]`.
    ///
    /// The name of the way to split text (`tokenizer.ggml.pre`) is `pre`, or the published name for
    /// the hash of an encoding ([`Self::pre_hash`]), or the name in the GGUF file that the tokenizer
    /// comes from. SentencePiece's BPE gets scores in the order of its merges.
    ///
    /// # Errors
    /// If the tokenizer is of a kind that GGUF files of decoders do not hold, if nothing names its way
    /// to split text, if it adds other tokens than BOS and EOS to texts, or if a reader of the metadata
    /// would find other tokens in a text.
    pub fn to_gguf(&self, rows: usize, pre: Option<&str>) -> Result<GgufTokenizer, DataError> {
        let json = self
            .inner
            .to_string(false)
            .map_err(|error| gguf(error.to_string()))?;
        let json: Value = serde_json::from_str(&json).map_err(|error| gguf(error.to_string()))?;
        let kind = Kind::of(&json)?;
        let pre = match kind {
            Kind::SentencePiece => "default".to_owned(),
            Kind::ByteLevel => match pre {
                Some(name) => name.to_owned(),
                None => self.pre()?,
            },
        };
        let mut written = vocabulary::read(&json, kind, rows)?;
        written.pre = pre;
        let (bos, eos) = (self.special.bos, self.special.eos);
        written.bos_id = bos;
        written.eos_id = eos;
        written.pad_id = self.special.pad.filter(|&id| (id as usize) < rows);
        let unknown = self.special.texts.get("unk_token").and_then(Value::as_str);
        written.unknown_id = unknown.and_then(|text| self.token_to_id(text));
        written.add_bos = Some(is_or_has(&self.prefix, bos)?);
        written.add_eos = Some(is_or_has(&self.suffix, eos)?);
        // Readers know the usual ends by their spelling.
        let usual = |id: u32| {
            let text = self.id_to_token(id);
            text.is_some_and(|text| END_TOKENS.contains(&text.as_str()))
        };
        let ends = self.end_ids.iter().copied();
        written.end_ids = ends.filter(|&id| Some(id) != eos && !usual(id)).collect();
        if let Some(templates) = &self.templates {
            let named = templates.named();
            written.chat_templates = named.map(|(n, s)| (n.to_owned(), s.to_owned())).collect();
        }
        self.compare(&written)?;
        Ok(written)
    }

    /// SHA-256 of the ids of a fixed text, as llama.cpp's converter computes it: equal for models
    /// with the same tokenizer.
    pub fn pre_hash(&self) -> Result<String, DataError> {
        let ids = self.encode(CHECK, true)?;
        // As Python prints a list.
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        Ok(hexadecimal(&Sha256::digest(format!(
            "[{}]",
            ids.join(", ")
        ))))
    }

    fn pre(&self) -> Result<String, DataError> {
        let hash = self.pre_hash()?;
        let published = names::NAMES.iter().find(|(known, _)| *known == hash);
        let known = published
            .map(|(_, name)| (*name).to_owned())
            .or_else(|| self.pre.clone());
        known.ok_or_else(|| {
            gguf(format!(
                "llama.cpp has no name for the way in which this tokenizer splits text (its hash is \
                 {hash}): name one that splits in the same way with --pre, such as `llama-bpe` or \
                 `qwen2`"
            ))
        })
    }

    /// Checks that a reader of the metadata finds the tokens that this tokenizer finds; a name of a way
    /// to split text that only llama.cpp knows is not checked.
    fn compare(&self, written: &GgufTokenizer) -> Result<(), DataError> {
        if written.model == "gpt2" && !super::byte_level::knows(&written.pre) {
            return Ok(());
        }
        let read = Self::from_gguf(written.clone())?;
        let differs = |text: &str| {
            let (own, other) = (self.encode(text, true)?, read.encode(text, true)?);
            let pairs = own.iter().zip(&other);
            let same = pairs.take_while(|(own, other)| own == other).count();
            let around = own[same.saturating_sub(3)..own.len().min(same + 3)].to_vec();
            Ok::<_, DataError>((own != other).then_some(around))
        };
        let mut found = differs(CHECK)?;
        let size = self.vocab_size.max(1);
        let mut words = 0;
        let mut different = Vec::new();
        for id in (0..size).step_by(size.div_ceil(COMPARED)) {
            let word = self.decode(&[id as u32], true)?;
            different.extend(differs(&format!("a {word}"))?);
            words += 1;
        }
        // Merges of the same token may be tried in another order, which seldom shows.
        if different.len() > words / 1000 {
            found = found.or(different.pop());
        }
        let Some(around) = found else {
            return Ok(());
        };
        let pre = match written.model.as_str() {
            "gpt2" => format!(" that splits text as `{}` does", written.pre),
            _ => String::new(),
        };
        Err(gguf(format!(
            "a reader of a GGUF file{pre} would find other tokens in {:?}: the tokenizer cannot be \
             written",
            self.decode(&around, false)?
        )))
    }
}

/// Whether the tokens around texts are this one; they may be none.
fn is_or_has(around: &[u32], token: Option<u32>) -> Result<bool, DataError> {
    match around {
        [] => Ok(false),
        [id] if Some(*id) == token => Ok(true),
        others => Err(gguf(format!(
            "the tokenizer adds the tokens {others:?} to texts, and GGUF files can only say that BOS \
             and EOS are added"
        ))),
    }
}

/// Kind of a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Byte-level BPE.
    ByteLevel,
    /// SentencePiece's BPE, with bytes for what is unknown.
    SentencePiece,
}

impl Kind {
    fn of(json: &Value) -> Result<Self, DataError> {
        let model = json["model"]["type"].as_str().unwrap_or("unknown");
        let bytes = json["model"]["byte_fallback"].as_bool().unwrap_or(false);
        let parts = |key: &str| json[key].to_string();
        let byte_level = parts("pre_tokenizer").contains("\"ByteLevel\"");
        match (model, byte_level, bytes) {
            ("BPE", true, _) => Ok(Self::ByteLevel),
            ("BPE", false, true) => Ok(Self::SentencePiece),
            ("BPE", false, false) => Err(gguf(
                "a BPE tokenizer that is neither byte-level nor falls back on bytes cannot be written",
            )),
            (other, ..) => Err(gguf(format!(
                "a tokenizer of the kind {other} cannot be written: GGUF files of decoders hold BPE"
            ))),
        }
    }
}
