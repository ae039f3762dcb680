//! The tokenizer among a model's files.

use crate::{TrainError, source::Source};
use std::path::Path;
use tightrope_data::{DataError, GgufTokenizer, Tokenizer};
use tightrope_model::{GgufTokenizerData, ModelError};

/// The tokenizer of a model, or why it has none: a folder without `tokenizer.json`, a GGUF file
/// with a tokenizer of an unknown kind. Token ids can be trained and evaluated without one. A
/// folder whose tokenizer is damaged is an error.
pub(crate) fn find(source: &Source) -> Result<Result<Tokenizer, String>, TrainError> {
    let (found, file) = match source {
        Source::Folder(folder) => (Tokenizer::from_folder(folder), folder),
        Source::Gguf(file) => match data(file) {
            Ok(data) => (Tokenizer::from_gguf(data), file),
            Err(error @ ModelError::Config { .. }) => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
        },
    };
    match found {
        Ok(tokenizer) => Ok(Ok(tokenizer)),
        Err(error @ DataError::NoTokenizer { .. }) => Ok(Err(error.to_string())),
        Err(error @ DataError::Gguf { .. }) => Ok(Err(format!("{}: {error}", file.display()))),
        Err(error) => Err(error.into()),
    }
}

fn data(file: &Path) -> Result<GgufTokenizer, ModelError> {
    let data = GgufTokenizerData::read(file)?;
    Ok(GgufTokenizer {
        model: data.model,
        pre: data.pre,
        tokens: data.tokens,
        token_types: data.token_types,
        scores: data.scores,
        merges: data.merges,
        bos_id: data.bos_id,
        eos_id: data.eos_id,
        unknown_id: data.unknown_id,
        pad_id: data.pad_id,
        end_ids: data.end_ids,
        add_bos: data.add_bos,
        add_eos: data.add_eos,
        add_space_prefix: data.add_space_prefix,
        chat_templates: data.chat_templates,
        file: file.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GGUF file of metadata alone: keys with text.
    fn gguf(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend((fields.len() as u64).to_le_bytes());
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        for (key, value) in fields {
            text(&mut bytes, key);
            bytes.extend(8_u32.to_le_bytes());
            text(&mut bytes, value);
        }
        bytes
    }

    fn why(source: &Source) -> String {
        find(source).unwrap().err().unwrap()
    }

    #[test]
    fn a_model_without_a_usable_tokenizer_has_none_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let none = why(&Source::Folder(folder.path().to_owned()));
        assert!(none.contains("tokenizer.json: not found"), "{none}");
        let file = folder.path().join("model.gguf");
        let written = |fields: &[(&str, &str)]| {
            std::fs::write(&file, gguf(fields)).unwrap();
            why(&Source::Gguf(file.clone()))
        };
        let none = written(&[("general.architecture", "llama")]);
        assert!(none.contains("tokenizer.ggml.model"), "{none}");
        std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
        assert!(find(&Source::Folder(folder.path().to_owned())).is_err());
    }
}
