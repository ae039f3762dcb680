//! Proves on a user's model and data that packing changes nothing.

use crate::RunError;
use serde::Serialize;
use tightrope_data::Examples;
use tightrope_device::DType;
use tightrope_model::{Adapters, Backend, HeadKind, TokenWeights, TrainableModel};
use tightrope_packing::{Batch, IGNORED, Piece};
use tightrope_train::{Weighed, batches::Batches, config::ObjectiveSection};

/// Result of one comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Batch that the packed batch is compared with.
    pub compared_with: &'static str,
    /// Quantity that is compared.
    pub quantity: &'static str,
    /// Difference of the two.
    pub difference: f64,
    /// Largest allowed difference; 0: bit for bit.
    pub allowed: f64,
    /// Whether the difference is allowed.
    pub passed: bool,
}

/// All checks of some packs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// Number of packs compared.
    pub packs: usize,
    /// Number of sequences in the packs.
    pub sequences: usize,
    /// Number of real tokens in the packs.
    pub tokens: usize,
    /// Worst result of all packs for each check.
    pub checks: Vec<Check>,
    /// Whether every check has passed.
    pub passed: bool,
}

/// Allowed differences between two ways to batch the same sequences.
#[derive(Clone, Copy)]
struct Tolerances {
    /// Tolerance for losses of single tokens: a few roundings at the size of a large loss.
    loss: f64,
    /// Tolerance for gradients, as `‖difference‖ / ‖gradient‖`: sums run in another order.
    gradient: f64,
}

impl Tolerances {
    fn of(precision: DType) -> Self {
        match precision {
            DType::F32 => Self {
                loss: 1e-5,
                gradient: 1e-4,
            },
            // A GPU may use another order of sums for another number of rows, and round the other
            // way; on any device, sums in another order may do so.
            _ => Self {
                loss: 5e-2,
                gradient: 5e-2,
            },
        }
    }
}

const SALT: u64 = 1;

/// Compares the first `limit` packs, in which examples may share beginnings, with their sequences one
/// by one, each with its own beginning, and with the pack in another order; changes one sequence and
/// checks that the others stay the same. Losses and gradients are those of the objective.
///
/// Dropout draws the same numbers for a token in every batch, unless beginnings are shared or answers
/// compared: then the model must have none. Overwrites the gradients; the weights stay.
pub fn verify<D: Backend>(
    model: &mut TrainableModel<D>,
    section: &ObjectiveSection,
    batches: &Batches<'_>,
    limit: usize,
) -> Result<Verification, RunError> {
    let (packing, examples) = (batches.packing(), batches.examples());
    let mut worst: Vec<Check> = Vec::new();
    let (mut count, mut tokens) = (0, 0);
    let packs = packing.len().min(limit);
    for index in 0..packs {
        let pack = packing.pack(index);
        let pieces = pieces(examples, pack);
        count += pieces.len();
        tokens += pieces
            .iter()
            .map(|piece| piece.length as usize)
            .sum::<usize>();
        let pack = Pack {
            section,
            examples,
            pack,
            pieces,
        };
        for check in pack.checks(model)? {
            let same = |known: &&mut Check| {
                (known.compared_with, known.quantity) == (check.compared_with, check.quantity)
            };
            match worst.iter_mut().find(same) {
                // A NaN counts as the worst result.
                Some(known) if check.difference <= known.difference => (),
                Some(known) => *known = check,
                None => worst.push(check),
            }
        }
    }
    Ok(Verification {
        packs,
        sequences: count,
        tokens,
        passed: packs > 0 && worst.iter().all(|check| check.passed),
        checks: worst,
    })
}

/// The pieces of a pack as pieces of whole sequences, those of an example one after the other.
fn pieces(examples: Examples<'_>, pack: &[Piece]) -> Vec<Piece> {
    if !examples.are_whole() {
        return pack.to_vec();
    }
    let members = pack.iter().flat_map(|piece| {
        let example = piece.sequence as usize;
        examples.members(example).map(move |index| Piece {
            sequence: index as u32,
            start: 0,
            length: examples.sequences().length(index) as u32,
        })
    });
    members.collect()
}

/// A pack to compare.
struct Pack<'a> {
    section: &'a ObjectiveSection,
    examples: Examples<'a>,
    pack: &'a [Piece],
    /// The same as pieces of sequences.
    pieces: Vec<Piece>,
}

impl Pack<'_> {
    fn checks<D: Backend>(&self, model: &mut TrainableModel<D>) -> Result<Vec<Check>, RunError> {
        let packed = Batch::packed(&self.examples, self.pack)?;
        let whole = Weighed::new(self.section, packed.clone());
        let reference = Run::of(model, &whole, std::slice::from_ref(whole.needed()))?;
        let allowed = Tolerances::of(model.precision());
        let mut checks = Vec::new();
        let each = each(model);
        let mut compare = |name: &'static str, run: &Run, examples: Vec<Vec<f32>>| {
            let losses = largest_difference(&reference.examples.concat(), &examples.concat());
            checks.push(check(name, each, losses, allowed.loss));
            if whole.compares() || whole.scores() {
                let loss = (run.loss - reference.loss).abs();
                checks.push(check(name, "loss of the pairs", loss, allowed.loss));
            }
            let gradient = relative_distance(&run.gradients, &reference.gradients);
            checks.push(check(name, "gradient", gradient, allowed.gradient));
        };

        let alone = self.alone()?;
        let run = Run::of(model, &alone, &self.divided(&alone)?)?;
        let examples = match self.examples.are_pairs() {
            true => run.examples.clone(),
            // Those of a group, one after the other.
            false => self.grouped(&run.examples),
        };
        compare("one by one", &run, examples);
        let reversed: Vec<Piece> = self.pack.iter().rev().copied().collect();
        let reversed = Batch::packed(&self.examples, &reversed)?;
        let reversed = Weighed::new(self.section, reversed);
        let run = Run::of(model, &reversed, std::slice::from_ref(reversed.needed()))?;
        let examples = run.examples.iter().rev().cloned().collect();
        compare("packed in reverse order", &run, examples);
        checks.extend(perturbation(model, &packed)?);
        Ok(checks)
    }

    /// The sequences side by side, each with its own beginning.
    fn alone(&self) -> Result<Weighed, RunError> {
        let sequences = self.examples.sequences();
        let batch = match self.examples.are_pairs() {
            true => {
                let lengths = self
                    .pieces
                    .chunks_exact(2)
                    .map(|pair| pair[0].length + pair[1].length);
                let pairs = self.pack.iter().zip(lengths);
                let pairs: Vec<_> = pairs
                    .map(|(pair, length)| Piece { length, ..*pair })
                    .collect();
                Batch::packed(&Examples::pairs(sequences), &pairs)?
            }
            false => Batch::packed(sequences, &self.pieces)?,
        };
        Ok(Weighed::new(self.section, batch))
    }

    /// Each of these sequences in a batch of its own.
    fn divided(&self, alone: &Weighed) -> Result<Vec<Batch>, RunError> {
        let sequences = self.examples.sequences();
        let mut start = 0;
        let batch = |piece: &Piece| {
            let targets = &alone.needed().targets()[start..][..piece.length as usize];
            start += piece.length as usize;
            let batch = Batch::packed(sequences, std::slice::from_ref(piece))?;
            Ok(batch.with_targets(targets.to_vec()))
        };
        self.pieces.iter().map(batch).collect()
    }

    /// Losses of sequences as losses of the examples of the pack.
    fn grouped(&self, sequences: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut sequences = sequences.iter();
        let members = self
            .pack
            .iter()
            .map(|piece| match self.examples.are_whole() {
                true => self.examples.members(piece.sequence as usize).count(),
                false => 1,
            });
        let example = |count| sequences.by_ref().take(count).flatten().copied().collect();
        members.map(example).collect()
    }
}

/// Changes every token of one sequence, which is not trained here, behind the beginning that it
/// shares: the losses of the others and all gradients must stay the same bit for bit.
fn perturbation<D: Backend>(
    model: &mut TrainableModel<D>,
    packed: &Batch,
) -> Result<Vec<Check>, RunError> {
    let sequences: Vec<_> = packed.segments().sequences().collect();
    if sequences.len() < 2 {
        return Ok(Vec::new());
    }
    let changed = sequences.get(sequences.len() / 2);
    let changed = changed.map_or(0..0, |sequence| sequence.own.tokens());
    let mut targets = packed.targets().to_vec();
    targets[changed.clone()].fill(IGNORED);
    let before = packed.with_targets(targets);
    // Ids that are used elsewhere are inside the vocabulary, so every token takes the id of
    // another.
    let mut tokens = packed.tokens().to_vec();
    let highest = tokens.iter().copied().max().unwrap_or(0);
    let lowest = tokens.iter().copied().min().unwrap_or(0);
    for token in &mut tokens[changed] {
        *token = if *token == highest { lowest } else { highest };
    }
    let after = before.with_tokens(tokens);
    let scale = 1.0 / packed.trained_tokens().max(1) as f32;
    let each = each(model);
    let mut run = |batch: &Batch| -> Result<_, RunError> {
        model.zero_gradients()?;
        if model.config().architecture().head == HeadKind::Score {
            let mut slopes = |scores: &[f64], slopes: &mut [f64]| {
                slopes.fill(1.0 / scores.len() as f64);
                slopes[scores.len() / 2] = 0.0;
            };
            let scores = model.forward_backward_scores(batch, &mut slopes, SALT)?;
            let others = scores.iter().enumerate();
            let others = others.filter(|(index, _)| *index != scores.len() / 2);
            let others = others.map(|(_, &score)| score as f32).collect();
            return Ok((others, gradients(model)?));
        }
        let weights = vec![scale; batch.len()];
        let weights = TokenWeights::Known(&weights);
        let losses = model.forward_backward(batch, weights, SALT)?.per_token;
        Ok((losses, gradients(model)?))
    };
    let (before, after) = (run(&before)?, run(&after)?);
    let name = "another sequence changed";
    let loss = largest_difference(&before.0, &after.0);
    let gradient = largest_difference(&before.1, &after.1);
    Ok(vec![
        check(name, each, loss, 0.0),
        check(name, "gradient", gradient, 0.0),
    ])
}

/// What is compared of each token, or of each sequence.
fn each<D: Backend>(model: &TrainableModel<D>) -> &'static str {
    match model.config().architecture().head {
        HeadKind::Tokens => "loss of each token",
        HeadKind::Score => "score of each sequence",
    }
}

fn check(
    compared_with: &'static str,
    quantity: &'static str,
    difference: f64,
    allowed: f64,
) -> Check {
    Check {
        compared_with,
        quantity,
        difference,
        allowed,
        passed: difference <= allowed,
    }
}

/// Loss and gradients of a step that is computed in some batches.
struct Run {
    loss: f64,
    /// Losses of the trained tokens of each example.
    examples: Vec<Vec<f32>>,
    gradients: Vec<f32>,
}

impl Run {
    /// The batches hold the tokens of `step` in order, with the targets that it needs.
    fn of<D: Backend>(
        model: &mut TrainableModel<D>,
        step: &Weighed,
        batches: &[Batch],
    ) -> Result<Self, RunError> {
        if step.scores() {
            return Self::of_scores(model, step, batches);
        }
        let (mut losses, mut reference) = (Vec::new(), Vec::new());
        for batch in batches.iter().filter(|_| step.compares()) {
            losses.extend(model.evaluate(batch)?.per_token);
            if step.has_reference() {
                reference.extend(model.evaluate_with(batch, Adapters::Off)?.per_token);
            }
        }
        // Without a comparison, the weights do not depend on the losses.
        losses.resize(step.needed().len(), 0.0);
        let known = step.has_reference().then_some(&reference[..]);
        let (_, weights) = step.weigh(losses, known);
        model.zero_gradients()?;
        let (mut losses, mut start) = (Vec::new(), 0);
        for batch in batches {
            let weights = &weights[start..][..batch.len()];
            start += batch.len();
            let weights = TokenWeights::Known(weights);
            losses.extend(model.forward_backward(batch, weights, SALT)?.per_token);
        }
        Ok(Self {
            examples: step.by_example(&losses),
            loss: step.weigh(losses, known).0,
            gradients: gradients(model)?,
        })
    }
}

impl Run {
    fn of_scores<D: Backend>(
        model: &mut TrainableModel<D>,
        step: &Weighed,
        batches: &[Batch],
    ) -> Result<Self, RunError> {
        let mut scores = Vec::new();
        for batch in batches {
            scores.extend(model.scores(batch)?);
        }
        let (loss, slopes) = step.weigh_scores(&scores);
        model.zero_gradients()?;
        let mut start = 0;
        for batch in batches {
            let mut known = |scores: &[f64], by_score: &mut [f64]| {
                by_score.copy_from_slice(&slopes[start..][..scores.len()]);
                start += scores.len();
            };
            model.forward_backward_scores(batch, &mut known, SALT)?;
        }
        let pairs = scores.as_chunks::<2>().0.iter();
        Ok(Self {
            loss,
            examples: pairs
                .map(|pair| pair.map(|score| score as f32).to_vec())
                .collect(),
            gradients: gradients(model)?,
        })
    }
}

fn gradients<D: Backend>(model: &mut TrainableModel<D>) -> Result<Vec<f32>, RunError> {
    let mut gradients = Vec::new();
    for parameter in model.parameters() {
        gradients.extend(parameter.gradient.to_vec::<f32>()?);
    }
    Ok(gradients)
}

/// Largest difference; NaN if one value is NaN, or if the numbers of values differ.
fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let differences = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    differences.fold(0.0, |largest, d| if d <= largest { largest } else { d })
}

fn relative_distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = |x: f64| x * x;
    let pairs = a.iter().zip(b);
    let distance: f64 = pairs
        .map(|(a, b)| squares(f64::from(*a) - f64::from(*b)))
        .sum();
    let norm: f64 = b.iter().map(|b| squares(f64::from(*b))).sum();
    match (a.len() == b.len(), norm == 0.0) {
        (false, _) => f64::NAN,
        (true, true) => distance.sqrt(),
        (true, false) => (distance / norm).sqrt(),
    }
}
