//! Shows sequences to users: the text of each token, and whether it is trained.

use tightrope_packing::{IGNORED, Sequence};

use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// A token in readable form.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct InspectedToken {
    /// Id of the token.
    pub id: u32,
    /// Text of the token; a character that several tokens make up belongs to the last of them.
    /// Without a tokenizer, the id and a space.
    pub text: String,
    /// Whether the model is trained to produce it.
    pub trained: bool,
}

/// Lists the tokens of a sequence with their text.
///
/// Target `i` is token `i + 1`: a token is trained if the one before it has a target.
pub fn inspect(
    sequence: &Sequence,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<InspectedToken>, DataError> {
    let texts = match tokenizer {
        Some(tokenizer) => tokenizer.texts(sequence.tokens())?,
        None => sequence
            .tokens()
            .iter()
            .map(|id| format!("{id} "))
            .collect(),
    };
    let targets = std::iter::once(IGNORED).chain(sequence.targets().iter().copied());
    let tokens = sequence.tokens().iter().zip(texts).zip(targets);
    Ok(tokens
        .map(|((&id, text), target)| InspectedToken {
            id,
            text,
            trained: target != IGNORED,
        })
        .collect())
}

impl Tokenizer {
    /// The text that each of `ids` adds to the text of the ids before it.
    fn texts(&self, ids: &[u32]) -> Result<Vec<String>, DataError> {
        let mut stream = self.decode_stream();
        let mut texts = Vec::with_capacity(ids.len());
        for &id in ids {
            texts.push(stream.step(id)?.unwrap_or_default());
        }
        Ok(texts)
    }
}
