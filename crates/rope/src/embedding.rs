//! Tables of cosines and sines for the tokens of a batch.

use crate::{
    RopeConfig, RopeError,
    frequencies::{attention_factor, check, inverse_frequencies},
};

/// Computed frequencies of a model.
#[derive(Clone, Debug)]
pub struct RotaryEmbedding {
    config: RopeConfig,
    /// Frequencies of sequences that are not longer than those of the pretraining.
    inverse_frequencies: Vec<f32>,
    attention_factor: f64,
}

impl RotaryEmbedding {
    /// Returns an error if the configuration has no meaning.
    pub fn new(config: &RopeConfig) -> Result<Self, RopeError> {
        check(config)?;
        let inverse_frequencies = inverse_frequencies(config, 0);
        // A base or factor near the ends of f32 can overflow.
        if let Some(value) = inverse_frequencies.iter().find(|f| !f.is_finite()) {
            return Err(RopeError::Value {
                name: "inverse frequency",
                value: f64::from(*value),
                rule: "must be finite: rope_theta or a factor is out of range",
            });
        }
        Ok(Self {
            config: config.clone(),
            inverse_frequencies,
            attention_factor: attention_factor(config),
        })
    }

    /// Number of elements of a head that rotate.
    pub fn rotary_dim(&self) -> usize {
        self.config.rotary_dim()
    }

    /// Factor of cos and sin, which the tables include (YaRN, LongRoPE; otherwise 1).
    pub fn attention_factor(&self) -> f64 {
        self.attention_factor
    }

    /// `rotary_dim / 2` angles per position, for a sequence of `length` positions. Only dynamic NTK
    /// and LongRoPE depend on the length.
    pub fn inverse_frequencies(&self, length: u64) -> std::borrow::Cow<'_, [f32]> {
        match length <= self.config.fixed_length() {
            true => (&self.inverse_frequencies).into(),
            false => inverse_frequencies(&self.config, length).into(),
        }
    }

    /// For each token of each segment `(first position, length)`, in order:
    /// `cos[t, i] = factor · cos(position · inverse_frequency[i])`, and `sin` likewise.
    ///
    /// `cos`, `sin`: `[tokens, rotary_dim / 2]` or longer; overwritten in the rows of the segments.
    /// Angles are f64 products of the position and the f32 inverse frequency; the results are
    /// rounded to f32 once.
    ///
    /// Scalings that depend on the length of the sequence use the length of each segment, `first
    /// position + length`, so a sequence gets the same rows in any pack.
    ///
    /// Returns an error if a table is too short; the rows before the error are already written.
    pub fn fill_tables(
        &self,
        segments: impl Iterator<Item = (u32, usize)>,
        cos: &mut [f32],
        sin: &mut [f32],
    ) -> Result<(), RopeError> {
        let pairs = self.rotary_dim() / 2;
        let mut row = 0usize;
        for (first, length) in segments {
            let needed = row.saturating_add(length).saturating_mul(pairs);
            for (operand, got) in [("cos", cos.len()), ("sin", sin.len())] {
                if got < needed {
                    return Err(RopeError::TooShort {
                        operand,
                        needed,
                        got,
                    });
                }
            }
            let end = u64::from(first) + length as u64;
            let frequencies = self.inverse_frequencies(end);
            let range = row * pairs..needed;
            let rows = cos[range.clone()]
                .chunks_exact_mut(pairs)
                .zip(sin[range].chunks_exact_mut(pairs));
            for (position, (cos, sin)) in (u64::from(first)..).zip(rows) {
                for ((&frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
                    let angle = position as f64 * f64::from(frequency);
                    let (s, c) = angle.sin_cos();
                    *cos = (self.attention_factor * c) as f32;
                    *sin = (self.attention_factor * s) as f32;
                }
            }
            row += length;
        }
        Ok(())
    }
}
