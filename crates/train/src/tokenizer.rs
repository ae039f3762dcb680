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
        chat_template: data.chat_template,
    })
}
