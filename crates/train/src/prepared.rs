//! Data that is ready for training: packed, counted and identified.

use crate::{
    Config, TrainError,
    batches::Batches,
    evaluate::{SetPacks, set_packs},
    objective::kto,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::iter;
use tightrope_data::{Dataset, ExampleKind, Examples};
use tightrope_formats::files::hexadecimal;
use tightrope_packing::Packing;

/// Training data in batches, and evaluation data in packs.
#[derive(Debug)]
pub struct Prepared<'a> {
    pub(crate) train: &'a Dataset,
    pub(crate) batches: Batches<'a>,
    pub(crate) eval: Option<(&'a Dataset, Vec<SetPacks>)>,
    capacity: usize,
    base: Vec<(&'static str, Value)>,
}

impl<'a> Prepared<'a> {
    /// Packs training and evaluation data. `padding_token` fills the rows of padded batches; any id
    /// of the vocabulary is valid.
    pub fn new(
        config: &Config,
        train: &'a Dataset,
        eval: Option<&'a Dataset>,
        padding_token: u32,
    ) -> Result<Self, TrainError> {
        let batches = Batches::new(config, train, padding_token)?;
        if batches.packing().is_empty() {
            let held_out = match config.data.eval_ratio > 0.0 {
                true => eval.map_or(0, |data| data.sequences.len() as u64),
                false => 0,
            };
            return Err(TrainError::NothingToTrain { held_out });
        }
        let longest = |data: &Dataset| {
            let lengths = Examples::from(data).packed_lengths();
            lengths.into_iter().max().unwrap_or(0) as usize
        };
        // KTO also evaluates prompts with the answers of others.
        let mismatched = |data: &Dataset| match data.kind {
            ExampleKind::Labelled => kto::longest(data.into(), config.data.max_length),
            ExampleKind::Sequences | ExampleKind::Pairs => 0,
        };
        let both = iter::once(train).chain(eval);
        let capacity = both.map(mismatched).fold(batches.max_tokens(), usize::max);
        let capacity = capacity.max(eval.map_or(0, longest));
        let eval = match eval {
            Some(data) => Some((data, set_packs(Some(data), data.into(), capacity)?)),
            None => None,
        };
        let nothing = |sets: &[SetPacks]| sets.iter().all(|set| set.packing.is_empty());
        if eval.as_ref().is_some_and(|(_, sets)| nothing(sets)) {
            return Err(TrainError::NothingToEvaluate);
        }
        Ok(Self {
            train,
            batches,
            eval,
            capacity,
            base: Vec::new(),
        })
    }

    /// Returns an error unless the data is of the kind that the objective of the configuration
    /// needs.
    pub(crate) fn check_kind(&self, config: &Config) -> Result<(), TrainError> {
        let eval = self.eval.iter();
        let eval = eval.map(|(data, _)| ("the evaluation data", *data));
        let mut all = eval.chain([("the training data", self.train)]);
        all.try_for_each(|(name, data)| config.objective.check_kind(name, data.kind))
    }

    /// Adds facts about the model that the data is for, such as digests of its files. A run can be
    /// resumed only with the same facts.
    pub fn for_base(self, base: Vec<(&'static str, Value)>) -> Self {
        Self { base, ..self }
    }

    /// Number of tokens in the largest batch, which the model's buffers must hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The batches of the run.
    pub fn batches(&self) -> &Batches<'a> {
        &self.batches
    }

    /// Facts that identify model and data, for comparing them with those of a checkpoint.
    pub(crate) fn facts(&self) -> Vec<(&'static str, Value)> {
        let packing = self.batches.packing();
        let mut facts = vec![
            ("training data", fact(self.train)),
            ("packing", packing_fact(packing)),
        ];
        if let Some((data, _)) = &self.eval {
            facts.push(("evaluation data", fact(data)));
        }
        facts.extend(self.base.iter().cloned());
        facts
    }

    /// Origins of the sequences of a training example, in a form that helps to find them; those of a
    /// pair have one.
    pub(crate) fn origins(&self, example: usize) -> Vec<String> {
        let members = self.batches.examples().members(example);
        let mut origins: Vec<_> = members.map(|index| self.origin(index)).collect();
        origins.dedup();
        origins
    }

    fn origin(&self, index: usize) -> String {
        let origin = self.train.sequences.origin(index).ok();
        let file = self
            .train
            .report
            .files
            .get(self.train.sequences.file(index));
        match (origin, file) {
            (Some(origin), Some(file)) => match origin.line {
                Some(line) => format!("{}:{line}", file.path),
                None => format!("{}: row {}", file.path, origin.row),
            },
            _ => format!("sequence {index}"),
        }
    }
}

/// Size, and the SHA-256 of the places of all pieces: the same for a stored packing and a new one.
fn packing_fact(packing: &Packing) -> Value {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", packing.layout()));
    for pack in packing.iter() {
        hash.update((pack.len() as u64).to_le_bytes());
        for piece in pack {
            for number in [piece.sequence, piece.start, piece.length] {
                hash.update(number.to_le_bytes());
            }
        }
    }
    json!({ "packs": packing.len(), "sha256": hexadecimal(&hash.finalize()) })
}

/// Sizes, and the SHA-256 of all tokens, targets and verdicts in order.
fn fact(data: &Dataset) -> Value {
    let mut hash = Sha256::new();
    hash.update(data.sequences.identity());
    let verdicts = data.desirable.iter().map(|&good| good.into());
    hash.update(verdicts.collect::<Vec<u8>>());
    json!({
        "sequences": data.sequences.len(),
        "tokens": data.sequences.tokens(),
        "sha256": hexadecimal(&hash.finalize()),
    })
}
