//! One tokenized training example.

use std::ops::Range;

/// Target of a position that is not trained, as in Transformers and PyTorch.
pub const IGNORED: i32 = -100;

/// Tokens, each with the token to be predicted after it.
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
    /// The numbers of labels and tokens differ.
    #[error("tokens and labels differ in number: {tokens} and {labels}")]
    Lengths {
        /// Number of tokens.
        tokens: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label is neither -100 nor a token id.
    #[error("label {label} at position {position} is neither a token id nor -100")]
    Label {
        /// Position of the label.
        position: usize,
        /// Value of the label.
        label: i64,
    },
}

impl Sequence {
    /// A sequence from unshifted labels, as in data sets: `labels[i]` is `tokens[i]` or
    /// [`IGNORED`].
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
            // No token before the first label could predict it.
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
    /// Shifted targets, one for each token.
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
    /// Number of positions with a target.
    pub fn trained_tokens(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORED).count()
    }
    /// Number of tokens before the first one with a target; all of them if there is none.
    pub fn untrained_beginning(&self) -> usize {
        let first = self.targets.iter().position(|&target| target != IGNORED);
        first.unwrap_or(self.len())
    }
    /// The tokens of a range; the last of them has no target.
    ///
    /// # Panics
    /// If the sequence has no such tokens.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let mut targets = self.targets[range.clone()].to_vec();
        if let Some(last) = targets.last_mut() {
            *last = IGNORED;
        }
        Self {
            tokens: self.tokens[range].to_vec(),
            targets,
        }
    }
    /// Keeps the first `len` tokens; a token that is cut is no target any more.
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
    fn parts_keep_their_targets_but_the_last() {
        let sequence = Sequence::from_labels(vec![5, 6, 7, 8], &[-100, -100, 7, 8]).unwrap();
        assert_eq!(sequence.untrained_beginning(), 1);
        let (first, rest) = (sequence.part(0..2), sequence.part(2..4));
        assert_eq!(
            (first.tokens(), first.targets()),
            (&[5, 6][..], &[IGNORED; 2][..])
        );
        assert_eq!(
            (rest.tokens(), rest.targets()),
            (&[7, 8][..], &[8, IGNORED][..])
        );
        assert_eq!(
            (first.untrained_beginning(), first.trained_tokens()),
            (2, 0)
        );
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
