//! Copies a batch to the device: ids, targets, angles and ranges.

use super::Model;
use crate::{Backend, ModelError, activations::Inputs};
use tightrope_kernels::attention::Range;
use tightrope_packing::{Batch, Segment, Segments};

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
            let own = Range::rows(segment.start as u32, segment.length as u32);
            let prefix = segment.prefix.map(|prefix| &segments[prefix]);
            Range {
                prefix_start: prefix.map_or(0, |prefix| prefix.start as u32),
                prefix_len: prefix.map_or(0, |prefix| prefix.length as u32),
                ..own
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
        let Inputs { ids, cos, sin, .. } = &mut self.activations.inputs;
        ids.write(tokens)?;
        let runs = segments
            .as_slice()
            .iter()
            .map(|s| (s.first_position, s.length));
        let [cosines, sines] = &mut self.tables;
        self.rope.fill_tables(runs, cosines, sines)?;
        let angles = tokens.len() * self.rope.rotary_dim() / 2;
        cos.write(&cosines[..angles])?;
        Ok(sin.write(&sines[..angles])?)
    }
}
