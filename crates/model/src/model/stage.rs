//! Copies a batch to the device: ids, targets, angles and ranges.

use super::Model;
use crate::{Backend, ModelError, activations::Inputs};
use tightrope_kernels::attention::Range;
use tightrope_packing::{Batch, Segment, Segments};
use tightrope_rope::RotaryEmbedding;

impl<D: Backend> Model<D> {
    /// Copies a batch to the device.
    pub(super) fn stage(&mut self, batch: &Batch) -> Result<(), ModelError> {
        self.stage_tokens(batch.tokens(), batch.segments())?;
        let vocabulary = self.config.architecture().vocabulary;
        for (index, &target) in batch.targets().iter().enumerate() {
            if usize::try_from(target).is_ok_and(|id| id >= vocabulary) {
                return Err(ModelError::Token {
                    index,
                    id: i64::from(target),
                    vocabulary,
                });
            }
        }
        self.activations.inputs.targets.write(batch.targets())?;
        let segments = batch.segments().as_slice();
        let range = |segment: &Segment| {
            let rows = |of: &Segment| Range::rows(of.start as u32, of.length as u32);
            match segment.prefix {
                None => rows(segment),
                Some(prefix) => rows(segment).after(&rows(&segments[prefix])),
            }
        };
        Ok(self.ranges.set(segments.iter().map(range))?)
    }

    /// Copies token ids to the device, and the angles of their positions.
    pub(crate) fn stage_tokens(
        &mut self,
        tokens: &[u32],
        segments: &Segments,
    ) -> Result<(), ModelError> {
        let vocabulary = self.config.architecture().vocabulary;
        if tokens.len() > self.capacity {
            return Err(ModelError::Capacity {
                tokens: tokens.len(),
                capacity: self.capacity,
            });
        }
        if let Some(index) = tokens.iter().position(|&id| id as usize >= vocabulary) {
            return Err(ModelError::Token {
                index,
                id: i64::from(tokens[index]),
                vocabulary,
            });
        }
        self.check_prefixes(segments)?;
        let Inputs { ids, angles, .. } = &mut self.activations.inputs;
        ids.write(tokens)?;
        for (rope, angles) in self.ropes.iter().zip(angles) {
            let segments = segments.as_slice().iter();
            let runs = segments.map(|s| (s.first_position, s.length));
            let [cosines, sines] = &mut self.tables;
            rope.fill_tables(runs, cosines, sines)?;
            let count = tokens.len() * rope.rotary_dim() / 2;
            angles.cos.write(&cosines[..count])?;
            angles.sin.write(&sines[..count])?;
        }
        Ok(())
    }

    /// Refuses a segment that continues another one with other frequencies.
    fn check_prefixes(&self, segments: &Segments) -> Result<(), ModelError> {
        let fixed = self.config.architecture().fixed_length();
        for segment in segments.as_slice().iter().filter(|s| s.prefix.is_some()) {
            let prefix = u64::from(segment.first_position);
            let length = u64::from(segment.end_position());
            let differ = |rope: &RotaryEmbedding| {
                rope.inverse_frequencies(prefix) != rope.inverse_frequencies(length)
            };
            if length > fixed && self.ropes.iter().any(differ) {
                return Err(ModelError::Prefix {
                    prefix,
                    length,
                    fixed,
                });
            }
        }
        Ok(())
    }
}
