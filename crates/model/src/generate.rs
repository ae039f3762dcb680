//! Reads a text token by token, with a cache of keys and values.

use crate::{Adapters, Backend, HeadKind, KvCache, Model, ModelError, model::project};
use tightrope_kernels::attention::Range;
use tightrope_packing::{Segment, Segments};

impl<D: Backend> Model<D> {
    /// A cache for texts of up to `capacity` tokens.
    pub fn cache(&self, capacity: usize) -> Result<KvCache<D>, ModelError> {
        self.expect_head(HeadKind::Tokens)?;
        let precision = self.precision();
        KvCache::new(
            &self.device,
            self.config.architecture(),
            capacity,
            precision,
        )
    }

    /// Reads `tokens` after those in the cache, and returns the logits after the last one.
    ///
    /// More tokens than the model's capacity are read in several passes. On an error the cache
    /// keeps the tokens of the completed passes.
    pub fn prefill(
        &mut self,
        cache: &mut KvCache<D>,
        tokens: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        if tokens.is_empty() {
            return Err(ModelError::Unsupported("a text of no tokens has no logits"));
        }
        if self.capacity == 0 || tokens.len() > cache.capacity() - cache.len() {
            return Err(ModelError::Capacity {
                tokens: cache.len().saturating_add(tokens.len()),
                capacity: cache.capacity().min(self.capacity),
            });
        }
        let mut rows = 0;
        for chunk in tokens.chunks(self.capacity) {
            self.extend(cache, chunk)?;
            rows = chunk.len();
        }
        // Only the last row is projected.
        let normed = self.activations.work.normed.view();
        let last = normed.rows(rows - 1..rows)?;
        let architecture = self.config.architecture();
        let weights = &self.weights;
        project(
            &self.device,
            architecture,
            weights,
            last,
            &mut cache.logits,
            1,
        )
    }

    /// Reads one more token, and returns the logits after it.
    pub fn decode(&mut self, cache: &mut KvCache<D>, token: u32) -> Result<Vec<f32>, ModelError> {
        self.prefill(cache, &[token])
    }

    fn extend(&mut self, cache: &mut KvCache<D>, tokens: &[u32]) -> Result<(), ModelError> {
        let too_long = || ModelError::Capacity {
            tokens: cache.len().saturating_add(tokens.len()),
            capacity: u32::MAX as usize,
        };
        let first = u32::try_from(cache.len()).map_err(|_| too_long())?;
        let length = u32::try_from(tokens.len()).map_err(|_| too_long())?;
        let end = first.checked_add(length).ok_or_else(too_long)?;
        let segment = Segment {
            first_position: first,
            ..Segment::alone(0, tokens.len(), Some(0))
        };
        let segments = Segments::new(vec![segment]).map_err(|_| too_long())?;
        self.stage_tokens(tokens, &segments)?;
        let range = Range {
            query_start: 0,
            query_len: length,
            key_start: 0,
            key_len: end,
            ..Range::default()
        };
        self.ranges.set([range])?;
        self.forward(tokens.len(), Some(cache), Adapters::On)?;
        cache.len += tokens.len();
        Ok(())
    }
}
