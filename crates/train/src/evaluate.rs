//! Measures a model on evaluation data, set by set.

use crate::{
    Config, Evaluation, StopFlag, TrainError,
    objective::{self, Objective, Results, Set, Totals},
};
use std::collections::BTreeMap;
use tightrope_data::{Dataset, Examples};
use tightrope_model::{Backend, Model};
use tightrope_packing::{Algorithm, Overlong, PackError, Packer, Packing};

/// The packs of one set of evaluation data.
#[derive(Debug)]
pub(crate) struct SetPacks {
    /// Name of the set; all data if there is none.
    pub name: Option<String>,
    pub packing: Packing,
}

/// Packs every example with a target once, in rows of at most `capacity` tokens, each set of `data`
/// in packs of its own. Examples keep their numbers.
pub(crate) fn set_packs(
    data: Option<&Dataset>,
    examples: Examples<'_>,
    capacity: usize,
) -> Result<Vec<SetPacks>, PackError> {
    let packer = Packer {
        overlong: Overlong::Error,
        ..Packer::new(Algorithm::BestFit, capacity as u64)
    };
    let lengths = examples.packed_lengths();
    let Some(data) = data.filter(|data| !data.report.sets.is_empty()) else {
        let packing = packer.pack(&lengths)?;
        return Ok(vec![SetPacks {
            name: None,
            packing,
        }]);
    };
    let sets = data.report.sets.iter().enumerate();
    let packs = sets.map(|(set, report)| {
        let mut own = lengths.clone();
        for (example, length) in own.iter_mut().enumerate() {
            if examples
                .members(example)
                .next()
                .map(|index| data.set_of(index))
                != Some(set)
            {
                *length = 0;
            }
        }
        Ok(SetPacks {
            name: Some(report.name.clone()),
            packing: packer.pack(&own)?,
        })
    });
    packs.collect()
}

/// Evaluates a model on examples by the objective of a configuration; they are packed into the
/// model's buffers. No example may be longer than `capacity`, the number of tokens that the model
/// was loaded for. A reference model is the model without its adapter.
pub fn evaluate<'a, D: Backend>(
    config: &Config,
    model: &mut Model<D>,
    examples: impl Into<Examples<'a>>,
    capacity: usize,
) -> Result<Evaluation, TrainError> {
    evaluate_sets(config, model, None, examples.into(), capacity)
}

/// The same, with an evaluation of each set of `data`, which the examples are the first of.
pub fn evaluate_sets<D: Backend>(
    config: &Config,
    model: &mut Model<D>,
    data: Option<&Dataset>,
    examples: Examples<'_>,
    capacity: usize,
) -> Result<Evaluation, TrainError> {
    let section = &config.objective;
    section.check_kind("the evaluation data", examples.kind())?;
    section.check_model(model.config())?;
    let sets = set_packs(data, examples, capacity)?;
    let mut objective = objective::of(config, None);
    let stop = StopFlag::default();
    let evaluation = evaluate_packed(model, &mut *objective, examples, &sets, &stop)?;
    evaluation.ok_or(TrainError::NothingToEvaluate)
}

/// Returns `None` if `stop` was requested before the end.
pub(crate) fn evaluate_packed<D: Backend>(
    model: &mut Model<D>,
    objective: &mut dyn Objective<D>,
    examples: Examples<'_>,
    sets: &[SetPacks],
    stop: &StopFlag,
) -> Result<Option<Evaluation>, TrainError> {
    let pieces = sets.iter().flat_map(|set| set.packing.pieces());
    let mut members: Vec<usize> = pieces.map(|piece| piece.sequence as usize).collect();
    members.sort_unstable();
    objective.begin(model, examples, &members, Set::Eval)?;
    let all = Totals::of_examples(examples, |_| true);
    let mut whole = Sums::default();
    let mut of_sets = BTreeMap::new();
    for SetPacks { name, packing } in sets {
        let mut packed = vec![false; tightrope_packing::Units::count(&examples)];
        for piece in packing.pieces() {
            packed[piece.sequence as usize] = true;
        }
        let totals = [
            all,
            Totals::of_examples(examples, |example| packed[example]),
        ];
        let mut own = Sums::default();
        for index in 0..packing.len() {
            if stop.is_requested() {
                return Ok(None);
            }
            let batch = packing.batch(index, &examples, 0)?;
            let [of_all, of_set] = objective.evaluate(model, &batch, totals)?;
            let counts = (batch.real_tokens() as u64, batch.trained_tokens() as u64);
            whole.add(of_all, counts);
            own.add(of_set, counts);
        }
        if let Some(name) = name.clone().filter(|_| own.trained_tokens > 0) {
            of_sets.insert(name, own.evaluation());
        }
    }
    if whole.trained_tokens == 0 {
        return Err(TrainError::NothingToEvaluate);
    }
    let loss = whole.results.loss;
    if !loss.is_finite() {
        let tensor = model.first_not_finite()?;
        return Err(TrainError::EvaluationNotFinite { loss, tensor });
    }
    Ok(Some(Evaluation {
        sets: of_sets,
        ..whole.evaluation()
    }))
}

/// Sums over batches.
#[derive(Default)]
struct Sums {
    results: Results,
    tokens: u64,
    trained_tokens: u64,
}

impl Sums {
    fn add(&mut self, results: Results, (tokens, trained_tokens): (u64, u64)) {
        self.results += results;
        self.tokens += tokens;
        self.trained_tokens += trained_tokens;
    }

    fn evaluation(&self) -> Evaluation {
        let Results { loss, rewards } = self.results;
        Evaluation {
            loss,
            perplexity: (!rewards.are_measured()).then(|| loss.exp()),
            rewards,
            tokens: self.tokens,
            trained_tokens: self.trained_tokens,
            sets: BTreeMap::new(),
        }
    }
}
