//! The plan of a run, from the model, the optimizer and the packs.

use super::Trainer;
use crate::{Plan, TrainError, observer::AdapterPlan};
use tightrope_data::{ExampleKind, Shared};
use tightrope_model::Backend;
use tightrope_packing::Layout;

impl<D: Backend> Trainer<'_, D> {
    /// What the run is about to do.
    pub(super) fn plan(&mut self) -> Result<Plan, TrainError> {
        let parameters = self.model.parameters();
        let trained_parameters = parameters.iter().map(|p| p.weight.len() as u64).sum();
        let batches = &self.prepared.batches;
        let config = self.config;
        let begins = batches.packing().pieces().iter();
        let begins = begins.filter(|piece| piece.start == 0);
        let all = batches.examples();
        let count = |example: usize| match all.are_pairs() {
            true => 1,
            // A group of sequences with a shared beginning.
            false => all.members(example).count(),
        };
        let examples: usize = begins.map(|piece| count(piece.sequence as usize)).sum();
        let examples = examples as u64;
        let all = &self.prepared.train.sequences;
        let trained: usize = (0..all.len()).map(|index| all.trained_tokens(index)).sum();
        let steps = batches.steps_per_epoch().max(1) as f64;
        Ok(Plan {
            model: config.model.clone(),
            objective: config.objective.kind.name(),
            device: self.model.device().name(),
            precision: self.model.precision().name(),
            parameters: self.model.elements(),
            adapter: config.lora.as_ref().map(|lora| AdapterPlan {
                from: config.adapter.clone(),
                section: lora.clone(),
            }),
            learning_rate: config.optimizer.learning_rate,
            capacity: config.packing.capacity,
            trained_parameters,
            optimizer: self.optimizer.plan()?,
            sequences: self.prepared.train.sequences.len() as u64,
            packs: batches.packing().len() as u64,
            row: match config.packing.mode.layout() {
                Layout::Padded => "row",
                Layout::Packed | Layout::PaddingFree => "pack",
            },
            tokens_per_epoch: batches.packing().tokens(),
            shared_tokens_per_epoch: batches.examples().shared().map(Shared::saved_tokens),
            first_step: self.state.step,
            total_steps: self.total_steps,
            steps_per_epoch: batches.steps_per_epoch(),
            example: match batches.examples().kind() {
                ExampleKind::Sequences => "sequence",
                ExampleKind::Pairs => "pair",
                ExampleKind::Labelled => "answer",
            },
            examples_per_step: examples as f64 / steps,
            trained_tokens_per_step: trained as f64 / steps,
            steps_of_eight: match config.batch.packs_per_step {
                Some(_) => examples.div_ceil(8),
                None => batches.steps_per_epoch(),
            },
        })
    }
}
