//! A small byte-level tokenizer and files to load, for the tests of this crate.

use std::path::{Path, PathBuf};

use tightrope_data::{DataError, DataOptions, Dataset, GgufTokenizer, Tokenizer, inspect, load};

pub(crate) const SPECIAL: [&str; 7] = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|eot_id|>",
];

pub(crate) const CHATML: &str = "{%- for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}\
    {%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Letters that represent bytes in byte-level BPE, in the order of the bytes.
pub(crate) fn byte_letters() -> Vec<char> {
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 256;
    (0..256)
        .map(|b| {
            let code = if printable(b) {
                b
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

/// A tokenizer with every byte as a token, a few merges and special tokens; BOS is `<s>`, EOS is
/// `</s>`.
pub(crate) fn gguf(template: Option<&str>) -> GgufTokenizer {
    let mut tokens: Vec<String> = byte_letters().into_iter().map(String::from).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ċ Ċ"];
    tokens.extend(merges.iter().map(|m| m.replace(' ', "")));
    let normal = tokens.len();
    tokens.extend(SPECIAL.map(str::to_owned));
    let types = (0..tokens.len()).map(|i| if i < normal { 1 } else { 3 });
    GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: "smollm".to_owned(),
        token_types: types.collect(),
        merges: merges.map(str::to_owned).to_vec(),
        bos_id: Some(normal as u32),
        eos_id: Some(normal as u32 + 1),
        pad_id: Some(normal as u32 + 1),
        chat_templates: template
            .map(|source| ("default".to_owned(), source.to_owned()))
            .into_iter()
            .collect(),
        tokens,
        ..GgufTokenizer::default()
    }
}

pub(crate) fn tokenizer(template: Option<&str>) -> Tokenizer {
    Tokenizer::from_gguf(gguf(template)).unwrap()
}

pub(crate) fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Loads one file with the content `bytes`.
pub(crate) fn load_bytes(
    name: &str,
    bytes: impl AsRef<[u8]>,
    options: &DataOptions,
    tokenizer: Option<&Tokenizer>,
) -> Result<Dataset, DataError> {
    let folder = tempfile::tempdir().unwrap();
    load(
        &[write(folder.path(), name, bytes)],
        options,
        tokenizer,
        &(),
    )
}

/// All texts of a sequence, trained parts in brackets.
pub(crate) fn marked(dataset: &Dataset, index: usize, tokenizer: &Tokenizer) -> String {
    let tokens = inspect(&dataset.sequences.get(index).unwrap(), Some(tokenizer)).unwrap();
    let mut out = String::new();
    let mut inside = false;
    for token in tokens {
        if token.trained != inside {
            out.push(if inside { '⟧' } else { '⟦' });
            inside = token.trained;
        }
        out.push_str(&token.text);
    }
    if inside {
        out.push('⟧');
    }
    out
}
