//! A byte-level BPE tokenizer trained on the demonstration's own records.

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, PreTokenizerWrapper};

use super::Record;
use crate::error::DataError;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// ChatML that marks the assistant's text. A space before it turns its first word into the same
/// token as elsewhere.
pub const CHAT_TEMPLATE: &str = "\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- ' ' + message.content + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}";

/// Trains a tokenizer of about `vocab_size` tokens (at least the 256 bytes and 3 special tokens) on
/// the text of `records`. Every digit is a token, so that numbers can be learnt by their digits.
/// The same records give the same tokenizer.
pub fn tokenizer(records: &[Record], vocab_size: usize) -> Result<Tokenizer, DataError> {
    let failed = |e: tokenizers::Error| DataError::Tokenize {
        message: e.to_string(),
    };
    let bpe = BPE::builder().build().map_err(failed)?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    inner.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::Digits(Digits::new(true)),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ])));
    inner.with_decoder(Some(ByteLevel::default()));
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let special = special.map(|token| AddedToken::from(token, true).normalized(false));
    let mut trainer = tokenizers::models::TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(special.to_vec())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build(),
    );
    let texts = records
        .iter()
        .flat_map(|r| [r.question.as_str(), r.answer.as_str()])
        .chain(["user\n", "assistant\n"]);
    inner.train(&mut trainer, texts).map_err(failed)?;
    let config = [
        ("bos_token", "<|endoftext|>"),
        ("eos_token", "<|im_end|>"),
        ("pad_token", "<|endoftext|>"),
    ];
    let config: Map<String, Value> = config
        .into_iter()
        .map(|(key, token)| (key.to_owned(), Value::from(token)))
        .collect();
    let template = ChatTemplate::compile(CHAT_TEMPLATE)?;
    Tokenizer::assemble(inner, config, Some(template.into()), &[])
}
