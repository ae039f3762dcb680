//! Tokens with a role: begin, end, padding.

use serde_json::{Map, Value};

/// Tokens that end a turn or a text in known models. Special tokens of a tokenizer that are in this
/// list stop generation and count as ends, besides its configured `eos_token`.
pub(super) const END_TOKENS: [&str; 18] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<|end|>",
    "<|return|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|eot|>",
    "<|end_of_sentence|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "</s>",
];

/// Keys of `tokenizer_config.json` that name a token, in the order of Transformers.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Special tokens by name, in the order that templates receive them.
#[derive(Clone, Debug, Default)]
pub(super) struct Special {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
    /// `bos_token` and similar tokens as text.
    pub texts: Map<String, Value>,
}

impl Special {
    pub(super) fn new(inner: &tokenizers::Tokenizer, config: &Map<String, Value>) -> Self {
        let mut special = Self::default();
        for key in NAMED {
            let Some(text) = config.get(key).and_then(token_text) else {
                continue;
            };
            let id = inner.token_to_id(text);
            match key {
                "bos_token" => special.bos = id,
                "eos_token" => special.eos = id,
                "pad_token" => special.pad = id,
                _ => {}
            }
            special.texts.insert(key.to_owned(), text.into());
        }
        special
    }
}

/// The token that a configuration names, as text or as an object with `content`.
pub(super) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
