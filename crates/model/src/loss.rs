//! The loss of a batch.

/// Cross-entropies of a batch.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Loss {
    /// Sum over the trained tokens, in f64 and in the order of the batch.
    pub sum: f64,
    /// Number of tokens with a target.
    pub trained_tokens: usize,
    /// Loss of each token; 0 for tokens without target.
    pub per_token: Vec<f32>,
}

impl Loss {
    /// Mean over the trained tokens; `None` if no token is trained.
    pub fn mean(&self) -> Option<f64> {
        (self.trained_tokens > 0).then(|| self.sum / self.trained_tokens as f64)
    }
}
