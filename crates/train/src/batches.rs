//! Assigns sequences to optimizer steps, as a pure function of data, seed and step.

use crate::{Config, TrainError, config::counts_sequences, report::Padding, stored};
use std::mem;
use tightrope_data::{Amount, DataError, Dataset, ExampleKind, Examples, Preflight};
use tightrope_packing::{
    Algorithm, Batch, Layout, Overlong, PackError, Packer, Packing, Piece, SegmentError, random,
};

/// The batches of a run.
///
/// If a step takes packs, it has `accumulation` passes of `packs_per_pass` packs; each epoch takes
/// every pack once, in its own order, and its last step may have fewer passes. If a step takes
/// sequences, each epoch deals them out to the steps in its own order, and each step is packed by
/// itself.
#[derive(Debug)]
pub struct Batches<'a> {
    examples: Examples<'a>,
    division: Division,
    /// Packs of the first epoch; of every epoch, if steps take packs.
    packing: Packing,
    seed: u64,
    padding_token: u32,
    /// The epoch that was requested last.
    epoch: Epoch,
}

/// What a step takes.
#[derive(Debug)]
enum Division {
    Packs {
        per_pass: usize,
        accumulation: usize,
    },
    Sequences {
        per_step: usize,
        packer: Packer,
        lengths: Vec<u32>,
    },
}

/// The steps of an epoch.
#[derive(Debug)]
struct Epoch {
    number: u64,
    /// The packs, if they are not those of the first epoch.
    packing: Option<Packing>,
    /// Packs in the order of the steps.
    order: Vec<u32>,
    /// End of each step in `order`.
    ends: Vec<u32>,
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
        if examples.are_whole() {
            packer.overlong = Overlong::Error;
        }
        let (seed, mode) = (config.seed, config.packing.mode);
        let per_step = config.batch.sequences_per_step;
        // Buckets of similar lengths are packs of all data.
        let dealt = per_step.filter(|_| mode != Algorithm::Bucketed);
        let (division, packing, epoch) = match (&config.packing.file, dealt) {
            (None, Some(per_step)) => {
                let steps = packer.pack_steps(&lengths, per_step, seed, 0)?;
                let epoch = Epoch::of_steps(steps.ends, 0);
                let division = Division::Sequences {
                    per_step,
                    packer,
                    lengths,
                };
                (division, steps.packing, epoch)
            }
            (file, _) => {
                let packing = match file {
                    Some(file) => stored::read(file, config, &packer, &lengths, examples)?,
                    None => packer.pack(&lengths)?,
                };
                let per_pass = config.batch.packs_per_step.unwrap_or(1);
                let accumulation = config.batch.accumulation;
                let epoch = Epoch::of_packs(&packing, seed, 0, per_pass * accumulation);
                let division = Division::Packs {
                    per_pass,
                    accumulation,
                };
                (division, packing, epoch)
            }
        };
        Ok(Self {
            examples,
            division,
            packing,
            seed,
            padding_token,
            epoch,
        })
    }

    /// Packing behind the batches; that of the first epoch if each has its own.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// The examples that are packed.
    pub fn examples(&self) -> Examples<'a> {
        self.examples
    }

    /// Number of optimizer steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.epoch.ends.len() as u64
    }

    /// Number of optimizer steps in the whole run.
    pub fn total_steps(&self, config: &Config) -> u64 {
        let by_epochs = |epochs: f64| (epochs * self.steps_per_epoch() as f64).ceil() as u64;
        let epochs = || by_epochs(config.run.epochs.unwrap_or(1.0));
        config.run.max_steps.unwrap_or_else(epochs).max(1)
    }

    /// Largest number of tokens in a pass of any epoch, padding included: the largest packs, or the
    /// longest sequences, may come together.
    pub fn max_tokens(&self) -> usize {
        let largest = |mut tokens: Vec<usize>, count: usize| -> usize {
            tokens.sort_unstable_by(|a, b| b.cmp(a));
            tokens.iter().take(count).sum()
        };
        let layout = self.packing.layout();
        match &self.division {
            Division::Packs { per_pass, .. } => {
                let rows = self.packing.iter().map(|pack| row_tokens(layout, pack));
                largest(rows.collect(), *per_pass)
            }
            Division::Sequences {
                per_step,
                packer,
                lengths,
            } => {
                let lengths = || lengths.iter().map(|&length| length as usize);
                let batch = (*per_step).min(packer.batch_size as usize);
                match layout {
                    Layout::Packed => {
                        let capacity = usize::try_from(packer.capacity).unwrap_or(usize::MAX);
                        largest(lengths().collect(), *per_step).min(capacity)
                    }
                    Layout::PaddingFree => largest(lengths().collect(), batch),
                    Layout::Padded => batch * lengths().max().unwrap_or(0),
                }
            }
        }
    }

    /// Number of passes in an epoch.
    pub fn passes_per_epoch(&self) -> usize {
        match self.division {
            Division::Packs { per_pass, .. } => self.packing.len().div_ceil(per_pass),
            Division::Sequences { .. } => self.packing.len(),
        }
    }

    /// Passes of a step; steps are counted from 1.
    pub fn step(&mut self, step: u64) -> Result<Vec<Batch>, TrainError> {
        let (steps, index) = (self.steps_per_epoch().max(1), step.saturating_sub(1));
        let (number, index) = (index / steps, (index % steps) as usize);
        if self.epoch.number != number {
            self.epoch = self.epoch(number)?;
        }
        let per_pass = match self.division {
            Division::Packs { per_pass, .. } => per_pass,
            Division::Sequences { .. } => 1,
        };
        let passes = self.epoch.step(index).chunks(per_pass);
        Ok(passes
            .map(|packs| self.batch(packs))
            .collect::<Result<_, _>>()?)
    }

    fn epoch(&self, number: u64) -> Result<Epoch, PackError> {
        match &self.division {
            Division::Packs {
                per_pass,
                accumulation,
            } => {
                let packs = per_pass * accumulation;
                Ok(Epoch::of_packs(&self.packing, self.seed, number, packs))
            }
            Division::Sequences {
                per_step,
                packer,
                lengths,
            } => {
                let steps = packer.pack_steps(lengths, *per_step, self.seed, number)?;
                Ok(Epoch {
                    packing: Some(steps.packing),
                    ..Epoch::of_steps(steps.ends, number)
                })
            }
        }
    }

    fn batch(&self, packs: &[u32]) -> Result<Batch, SegmentError> {
        let packing = self.epoch.packing.as_ref().unwrap_or(&self.packing);
        match packs {
            [pack] => packing.batch(*pack as usize, &self.examples, self.padding_token),
            packs => {
                let packs = packs.iter().map(|&pack| packing.pack(pack as usize));
                Batch::packed(
                    &self.examples,
                    &packs.flatten().copied().collect::<Vec<_>>(),
                )
            }
        }
    }
}

impl Epoch {
    fn new(number: u64, order: Vec<u32>, ends: Vec<u32>) -> Self {
        Self {
            number,
            packing: None,
            order,
            ends,
        }
    }

    /// Steps whose packs follow each other.
    fn of_steps(ends: Vec<u32>, number: u64) -> Self {
        let packs = ends.last().copied().unwrap_or(0);
        Self::new(number, (0..packs).collect(), ends)
    }

    /// Steps of `per_step` packs each.
    fn of_packs(packing: &Packing, seed: u64, number: u64, per_step: usize) -> Self {
        let order = packing.epoch_order(seed, number);
        let ends = order.chunks(per_step).scan(0, |end, packs| {
            *end += packs.len() as u32;
            Some(*end)
        });
        Self::new(number, order.clone(), ends.collect())
    }

    /// Packs of a step, counted from 0.
    fn step(&self, index: usize) -> &[u32] {
        let first = match index.checked_sub(1) {
            None => 0,
            Some(before) => self.ends[before],
        };
        let end = self.ends.get(index).copied().unwrap_or(first);
        &self.order[first as usize..end as usize]
    }
}

/// Lets training sequences share their beginnings as `packing.share_prefix` says: the answers of
/// pairs, or groups of sequences. No sequence longer than `longest` shares its beginning
/// (`RopeConfig::fixed_length` of the model).
pub fn share(config: &Config, train: &mut Dataset, longest: u64) -> Result<(), DataError> {
    match config.packing.share_prefix {
        true => train.share_beginnings(longest, config.packing.capacity),
        false => Ok(()),
    }
}

/// The same for evaluation data, whose single sequences stay as they are.
pub fn share_eval(config: &Config, eval: &mut Dataset, longest: u64) -> Result<(), DataError> {
    match eval.kind {
        ExampleKind::Pairs => share(config, eval, longest),
        ExampleKind::Sequences | ExampleKind::Labelled => Ok(()),
    }
}

/// Packer of a configuration.
pub fn packer(config: &Config) -> Packer {
    // The sequences of a step in batches are divided among its passes.
    let size = match config.batch.sequences_per_step {
        Some(sequences) => sequences.div_ceil(config.batch.accumulation),
        None => 1,
    };
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
pub fn hold_out(data: Dataset, ratio: f64, seed: u64) -> (Dataset, Dataset) {
    let starts: Vec<u32> = data.records().map(|record| record.start as u32).collect();
    let set_of = |start: &u32| data.set_of(*start as usize);
    let last = starts.iter().map(set_of).max().unwrap_or(0);
    let mut chosen = vec![false; starts.len()];
    for set in 0..=last {
        let own = (0..).zip(&starts).filter(|(_, start)| set_of(start) == set);
        let mut own: Vec<u32> = own.map(|(record, _)| record).collect();
        let most = match last {
            0 => own.len().saturating_sub(1).max(1),
            _ => own.len().saturating_sub(1),
        };
        let count = ((own.len() as f64 * ratio).round() as usize)
            .max(1)
            .min(most);
        // Records with the smallest hashes are held out.
        own.sort_by_cached_key(|&record| random::at(seed, record.into()));
        let held = own.iter().take(count);
        held.for_each(|&record| chosen[record as usize] = true);
    }
    let side = |held: bool| {
        let all = data.sequences.len() as u32;
        let ends = starts.iter().skip(1).copied().chain([all]);
        let records = starts.iter().zip(ends).zip(&chosen);
        let own = records.filter(|(_, chosen)| **chosen == held);
        data.select(own.flat_map(|((&start, end), _)| start..end).collect())
    };
    let (train, mut held) = (side(false), side(true));
    // Each held-out record is evaluated once, however often the others are trained.
    let Preflight { files, sets, .. } = mem::take(&mut held.report);
    held.report = Preflight {
        files,
        sets,
        ..Preflight::default()
    };
    for set in &mut held.report.sets {
        set.amount = Amount::default();
    }
    (train, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_data::Origin;
    use tightrope_packing::Sequence;

    #[test]
    fn sequences_of_one_record_are_held_out_together() {
        let sequence = |row| Sequence::from_labels(vec![row, row + 1], &[0, 1]).unwrap();
        // Two files with the same rows, of three sequences each.
        let all = (0..2).flat_map(|file| (3..33).map(move |sequence| (file, sequence / 3)));
        let all = all.map(|(file, row)| {
            let origin = Origin {
                file,
                row: row.into(),
                line: None,
            };
            (sequence(row), origin)
        });
        let data = Dataset {
            sequences: all.collect(),
            ..Dataset::default()
        };
        let (train, held) = hold_out(data, 0.25, 7);
        assert_eq!((train.sequences.len(), held.sequences.len()), (45, 15));
        let records = |data: &Dataset| {
            let origins = (0..data.sequences.len()).map(|index| {
                let origin = data.sequences.origin(index).unwrap();
                (origin.file, origin.row)
            });
            origins.collect::<std::collections::BTreeSet<_>>()
        };
        assert!(records(&train).is_disjoint(&records(&held)));
    }
}
