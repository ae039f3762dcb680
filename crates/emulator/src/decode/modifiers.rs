//! The dotted words of a mnemonic, which are taken one by one: a word that is left over is refused,
//! so that no modifier is ever ignored in silence.
use crate::ptx::types::ScalarType;

/// The modifiers of one instruction.
#[derive(Clone, Debug)]
pub(crate) struct Modifiers {
    words: Vec<String>,
    types: Vec<ScalarType>,
}

impl Modifiers {
    pub(crate) fn new(modifiers: &[String]) -> Self {
        let types = modifiers
            .iter()
            .filter_map(|word| ScalarType::parse(word))
            .collect();
        let is_word = |word: &&String| ScalarType::parse(word).is_none();
        Self {
            words: modifiers.iter().filter(is_word).cloned().collect(),
            types,
        }
    }

    /// Takes `word` if it is present.
    pub(crate) fn take(&mut self, word: &str) -> bool {
        let found = self.words.iter().position(|w| w == word);
        if let Some(at) = found {
            self.words.remove(at);
        }
        found.is_some()
    }

    /// Takes the first of `words` that is present.
    pub(crate) fn take_any(&mut self, words: &[&'static str]) -> Option<&'static str> {
        words.iter().copied().find(|word| self.take(word))
    }

    /// Type of the instruction: the first, if there are several.
    pub(crate) fn ty(&self) -> Option<ScalarType> {
        self.types.first().copied()
    }

    /// All types in order.
    pub(crate) fn types(&self) -> &[ScalarType] {
        &self.types
    }

    /// First word that was not taken.
    pub(crate) fn left_over(&self) -> Option<&str> {
        self.words.first().map(String::as_str)
    }
}
