//! One tokenized training example.

/// The target of a position that trains nothing, as Transformers and PyTorch have it.
pub const IGNORED: i32 = -100;

/// Tokens with the token to be predicted after each of them.
///
/// `targets[i]` is the id that follows `tokens[i]`, or [`IGNORED`]; the last is always [`IGNORED`].
/// Targets are shifted here, once, before anything is packed: no target can cross a boundary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    tokens: Vec<u32>,
    targets: Vec<i32>,
}

/// Labels that cannot be trained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// As many labels as tokens are needed.
    #[error("{tokens} tokens but {labels} labels")]
    Lengths {
        /// Number of tokens.
        tokens: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label is neither -100 nor a token id.
    #[error("label {label} at position {position} is neither a token id nor -100")]
    Label {
        /// Where it stands.
        position: usize,
        /// The value.
        label: i64,
    },
}

impl Sequence {
    /// From unshifted labels as datasets have them: `labels[i]` is `tokens[i]` or [`IGNORED`].
    pub fn from_labels(tokens: Vec<u32>, labels: &[i64]) -> Result<Self, SequenceError> {
        if tokens.len() != labels.len() {
            return Err(SequenceError::Lengths {
                tokens: tokens.len(),
                labels: labels.len(),
            });
        }
        let mut targets = Vec::with_capacity(tokens.len());
        for (position, &label) in labels.iter().enumerate() {
            let target = match i32::try_from(label) {
                Ok(id) if id >= 0 || id == IGNORED => id,
                _ => return Err(SequenceError::Label { position, label }),
            };
            // The first label has nothing before it that could predict it.
            if position > 0 {
                targets.push(target);
            }
        }
        targets.resize(tokens.len(), IGNORED);
        Ok(Self { tokens, targets })
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// The shifted targets, as many as tokens.
    pub fn targets(&self) -> &[i32] {
        &self.targets
    }
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
    /// Positions that have a target.
    pub fn trained_tokens(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORED).count()
    }
    /// Keeps the first `len` tokens; what is cut can no longer be a target.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.targets.truncate(len);
        if let Some(last) = self.targets.last_mut() {
            *last = IGNORED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_shifted_by_one() {
        let sequence = Sequence::from_labels(vec![5, 6, 7], &[-100, 6, 7]).unwrap();
        assert_eq!(sequence.targets(), [6, 7, IGNORED]);
        let mut shorter = sequence;
        shorter.truncate(2);
        assert_eq!(shorter.targets(), [6, IGNORED]);
    }

    #[test]
    fn bad_labels_are_named() {
        assert_eq!(
            Sequence::from_labels(vec![1, 2], &[1, -1]),
            Err(SequenceError::Label {
                position: 1,
                label: -1
            })
        );
        assert_eq!(
            Sequence::from_labels(vec![1], &[]),
            Err(SequenceError::Lengths {
                tokens: 1,
                labels: 0
            })
        );
    }
}
