//! Finds the tokenizer among a model's files.

use crate::{RunError, source::Source};
use tightrope_data::{DataError, Tokenizer};
use tightrope_formats::{FormatError, gguf::GgufTokenizer};

/// Returns the tokenizer of a model, or the reason why it has none: a folder without
/// `tokenizer.json`, or a GGUF file with an unknown kind of tokenizer. Token ids can be trained and
/// evaluated without one. A damaged tokenizer is an error.
pub(crate) fn find(source: &Source) -> Result<Result<Tokenizer, String>, RunError> {
    let (found, file) = match source {
        Source::Folder(folder) => (Tokenizer::from_folder(folder), folder),
        Source::Gguf(file) => match GgufTokenizer::read(file) {
            Ok(data) => (Tokenizer::from_gguf(data), file),
            Err(error @ FormatError::Metadata { .. }) => return Ok(Err(error.to_string())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_formats::gguf::{self, Value};

    fn why(source: &Source) -> String {
        find(source).unwrap().err().unwrap()
    }

    #[test]
    fn a_model_without_a_usable_tokenizer_has_none_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let none = why(&Source::Folder(folder.path().to_owned()));
        assert!(none.contains("tokenizer.json: not found"), "{none}");
        let file = folder.path().join("model.gguf");
        let architecture = ("general.architecture", Value::Text("llama".into()));
        gguf::write::<FormatError>(&file, &[architecture], vec![]).unwrap();
        let none = why(&Source::Gguf(file));
        assert!(none.contains("tokenizer.ggml.model"), "{none}");
        std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
        assert!(find(&Source::Folder(folder.path().to_owned())).is_err());
    }
}
