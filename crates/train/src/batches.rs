//! Assigns sequences to optimizer steps, as a pure function of data, seed and step.

use crate::{Config, TrainError, config::counts_sequences, report::Padding, stored};
use tightrope_data::{Amount, Dataset, Examples};
use tightrope_packing::{
    Algorithm, Batch, Layout, Overlong, Packer, Packing, Piece, SegmentError, random,
};

/// The batches of a run.
///
/// A step has `accumulation` passes of `packs_per_pass` packs. Each epoch takes every pack once, in
/// its own order; its last step may have fewer passes. In the modes that count sequences, a pack is
/// one whole batch.
#[derive(Debug)]
pub struct Batches<'a> {
    examples: Examples<'a>,
    packing: Packing,
    packs_per_pass: usize,
    accumulation: usize,
    seed: u64,
    padding_token: u32,
    /// Order of the epoch that was requested last.
    order: (u64, Vec<u32>),
}

impl<'a> Batches<'a> {
    /// Packs the examples as configured, or reads the stored packing that the configuration names.
    pub fn new(
        config: &Config,
        examples: impl Into<Examples<'a>>,
        padding_token: u32,
    ) -> Result<Self, TrainError> {
        let examples = examples.into();
        let (mut packer, lengths) = (packer(config), examples.packed_lengths());
        if examples.are_pairs() {
            packer.overlong = Overlong::Error;
        }
        let packing = match &config.packing.file {
            Some(file) => stored::read(file, config, &packer, &lengths, examples.are_pairs())?,
            None => packer.pack(&lengths)?,
        };
        let order = (0, packing.epoch_order(config.seed, 0));
        Ok(Self {
            examples,
            packing,
            packs_per_pass: config.batch.packs_per_step.unwrap_or(1),
            accumulation: config.batch.accumulation,
            seed: config.seed,
            padding_token,
            order,
        })
    }

    /// Packing behind the batches.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// The examples that are packed.
    pub fn examples(&self) -> Examples<'a> {
        self.examples
    }

    /// Number of optimizer steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.packing
            .len()
            .div_ceil(self.packs_per_pass * self.accumulation) as u64
    }

    /// Number of optimizer steps in the whole run.
    pub fn total_steps(&self, config: &Config) -> u64 {
        let by_epochs = |epochs: f64| (epochs * self.steps_per_epoch() as f64).ceil() as u64;
        let epochs = || by_epochs(config.run.epochs.unwrap_or(1.0));
        config.run.max_steps.unwrap_or_else(epochs).max(1)
    }

    /// Largest number of tokens in a pass, padding included: the largest packs may come together.
    pub fn max_tokens(&self) -> usize {
        let layout = self.packing.layout();
        let mut tokens: Vec<_> = self.packing.iter().map(|p| row_tokens(layout, p)).collect();
        tokens.sort_unstable_by(|a, b| b.cmp(a));
        tokens.iter().take(self.packs_per_pass).sum()
    }

    /// Number of passes in an epoch.
    pub fn passes_per_epoch(&self) -> usize {
        self.packing.len().div_ceil(self.packs_per_pass)
    }

    /// Passes of a step; steps are counted from 1.
    pub fn step(&mut self, step: u64) -> Result<Vec<Batch>, SegmentError> {
        let (steps, index) = (self.steps_per_epoch(), step.saturating_sub(1));
        let (epoch, index) = (index / steps, (index % steps) as usize);
        if self.order.0 != epoch {
            self.order = (epoch, self.packing.epoch_order(self.seed, epoch));
        }
        let packs = self
            .order
            .1
            .chunks(self.packs_per_pass * self.accumulation)
            .nth(index);
        let passes = packs.unwrap_or(&[]).chunks(self.packs_per_pass);
        passes.map(|packs| self.batch(packs)).collect()
    }

    fn batch(&self, packs: &[u32]) -> Result<Batch, SegmentError> {
        match packs {
            [pack] => self
                .packing
                .batch(*pack as usize, &self.examples, self.padding_token),
            packs => {
                let packs = packs.iter().map(|&pack| self.packing.pack(pack as usize));
                Batch::packed(
                    &self.examples,
                    &packs.flatten().copied().collect::<Vec<_>>(),
                )
            }
        }
    }
}

/// Packer of a configuration.
pub fn packer(config: &Config) -> Packer {
    let size = config.batch.sequences_per_step.unwrap_or(1);
    // A batch of sequences has no capacity; the data section limits lengths.
    let capacity = match counts_sequences(config.packing.mode) {
        true => config.packing.capacity.max(config.data.max_length as u64),
        false => config.packing.capacity,
    };
    Packer {
        depth: config.packing.max_sequences,
        batch_size: u32::try_from(size).unwrap_or(u32::MAX),
        window: config.packing.window,
        seed: Some(config.seed),
        ..Packer::new(config.packing.mode, capacity)
    }
}

/// Compares the cost of an epoch as packed with the cost of padding at the same number of
/// sequences.
pub(crate) fn padding(packing: &Packing, passes: usize, examples: Examples<'_>) -> Padding {
    // Other programs pad each answer of a pair.
    let lengths = Examples::from(examples.sequences()).packed_lengths();
    let count = lengths.iter().filter(|&&length| length > 0).count();
    let batch_size = (count as f64 / passes.max(1) as f64).round().max(1.0) as u32;
    let cost = |mode| {
        let longest = lengths.iter().copied().max().unwrap_or(1).max(1);
        let packer = Packer {
            batch_size,
            ..Packer::new(mode, longest.into())
        };
        let packing = packer.pack(&lengths);
        packing.map_or(0, |packing| packing.computed_tokens() as u64)
    };
    Padding {
        tokens: packing.tokens(),
        computed_tokens: computed_tokens(packing),
        batch_size,
        padded_tokens: cost(Algorithm::Padded),
        bucketed_tokens: cost(Algorithm::Bucketed),
    }
}

/// Number of tokens that the model computes in an epoch: rows are not filled up to the capacity.
fn computed_tokens(packing: &Packing) -> u64 {
    packing
        .iter()
        .map(|pack| row_tokens(packing.layout(), pack) as u64)
        .sum()
}

fn row_tokens(layout: Layout, pack: &[Piece]) -> usize {
    let lengths = || pack.iter().map(|piece| piece.length as usize);
    match layout {
        Layout::Padded => lengths().max().unwrap_or(0) * pack.len(),
        Layout::Packed | Layout::PaddingFree => lengths().sum(),
    }
}

/// Separates a share of the records of each set for evaluation: the same records for the same seed.
/// Sequences of one record (its pieces, or the contents of its packed row) stay together.
pub fn hold_out(mut data: Dataset, ratio: f64, seed: u64) -> (Dataset, Dataset) {
    let mut held = Dataset {
        pairs: data.pairs,
        ..Dataset::default()
    };
    // Each held-out record is evaluated once, however often the others are trained.
    held.report.files.clone_from(&data.report.files);
    held.report.sets.clone_from(&data.report.sets);
    for set in &mut held.report.sets {
        set.amount = Amount::default();
    }
    let records = data.records();
    let sets: Vec<usize> = records
        .iter()
        .map(|record| data.set_of(record.start))
        .collect();
    let mut chosen = vec![false; data.sequences.len()];
    let last = sets.iter().copied().max().unwrap_or(0);
    for set in 0..=last {
        let mut own: Vec<usize> = (0..records.len())
            .filter(|&index| sets[index] == set)
            .collect();
        let most = match last {
            0 => own.len().saturating_sub(1).max(1),
            _ => own.len().saturating_sub(1),
        };
        let count = ((own.len() as f64 * ratio).round() as usize)
            .max(1)
            .min(most);
        // Records with the smallest hashes are held out.
        own.sort_by_key(|&index| random::at(seed, index as u64));
        for &index in own.iter().take(count) {
            chosen[records[index].clone()].fill(true);
        }
    }
    let split = data.sequences.into_iter().zip(data.origins).zip(chosen);
    (data.sequences, data.origins) = (Vec::new(), Vec::new());
    for ((sequence, origin), chosen) in split {
        let side = if chosen { &mut held } else { &mut data };
        side.sequences.push(sequence);
        side.origins.push(origin);
    }
    (data, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_data::Origin;
    use tightrope_packing::Sequence;

    #[test]
    fn sequences_of_one_record_are_held_out_together() {
        let sequence = |row| Sequence::from_labels(vec![row, row + 1], &[0, 1]).unwrap();
        let mut data = Dataset::default();
        // Two files with the same rows.
        for (file, row) in (0..2).flat_map(|file| (1..=10).map(move |row| (file, row))) {
            for _ in 0..3 {
                data.sequences.push(sequence(row));
                data.origins.push(Origin {
                    file,
                    row: row.into(),
                    line: None,
                });
            }
        }
        let (train, held) = hold_out(data, 0.25, 7);
        assert_eq!((train.sequences.len(), held.sequences.len()), (45, 15));
        let records = |data: &Dataset| {
            let origins = data.origins.iter().map(|o| (o.file, o.row));
            origins.collect::<std::collections::BTreeSet<_>>()
        };
        assert!(records(&train).is_disjoint(&records(&held)));
    }
}
