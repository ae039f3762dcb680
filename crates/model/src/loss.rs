//! The loss of a batch.

/// Cross-entropies of a batch.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Loss {
    /// Sum over the trained tokens, in f64 and in the order of the batch.
    pub sum: f64,
    /// Tokens that have a target.
    pub trained_tokens: usize,
    /// One a token; 0 where there is no target.
    pub per_token: Vec<f32>,
}

impl Loss {
    /// The mean over the trained tokens; `None` where nothing is trained.
    pub fn mean(&self) -> Option<f64> {
        (self.trained_tokens > 0).then(|| self.sum / self.trained_tokens as f64)
    }
}
