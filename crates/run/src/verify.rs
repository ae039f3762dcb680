//! Proves on a user's model and data that packing changes nothing.

use crate::RunError;
use serde::Serialize;
use tightrope_data::Examples;
use tightrope_device::DType;
use tightrope_model::{Backend, TokenWeights, TrainableModel};
use tightrope_packing::{Batch, IGNORED, Piece, Sequence};
use tightrope_train::batches::Batches;

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
            // way.
            _ => Self {
                loss: 5e-2,
                gradient: 5e-2,
            },
        }
    }
}

const SALT: u64 = 1;

/// Compares the first `limit` packs with their sequences one by one, padded, and in another order;
/// changes one sequence and checks that the others stay the same. Dropout, if any, draws the same
/// numbers for a token in every batch. Overwrites the gradients; the weights stay.
pub fn verify<D: Backend>(
    model: &mut TrainableModel<D>,
    batches: &Batches<'_>,
    limit: usize,
) -> Result<Verification, RunError> {
    let (packing, examples) = (batches.packing(), batches.examples());
    let sequences = examples.sequences();
    let mut worst: Vec<Check> = Vec::new();
    let (mut count, mut tokens) = (0, 0);
    let packs = packing.len().min(limit);
    for index in 0..packs {
        let pieces = pieces(examples, packing.pack(index));
        count += pieces.len();
        tokens += pieces
            .iter()
            .map(|piece| piece.length as usize)
            .sum::<usize>();
        for check in pack_checks(model, sequences, &pieces)? {
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

/// The pieces of a pack as pieces of sequences: the answers of a pair one after the other.
fn pieces(examples: Examples<'_>, pack: &[Piece]) -> Vec<Piece> {
    if !examples.are_pairs() {
        return pack.to_vec();
    }
    let answers = pack.iter().flat_map(|piece| {
        let example = piece.sequence as usize;
        let first = examples.start(example) as u32;
        let answers = (first..).zip(examples.of(example));
        answers.map(|(sequence, answer)| Piece {
            sequence,
            start: 0,
            length: answer.len() as u32,
        })
    });
    answers.collect()
}

fn pack_checks<D: Backend>(
    model: &mut TrainableModel<D>,
    sequences: &[Sequence],
    pieces: &[Piece],
) -> Result<Vec<Check>, RunError> {
    let packed = Batch::packed(sequences, pieces)?;
    let scale = 1.0 / packed.trained_tokens().max(1) as f32;
    let reference = Run::of(model, std::slice::from_ref(&packed), scale)?;
    let allowed = Tolerances::of(model.precision());
    let mut checks = Vec::new();
    let mut compare = |name: &'static str, run: &Run, order: &[usize]| {
        let losses = run.losses_in(order, pieces);
        let loss = largest_difference(&reference.losses, &losses);
        checks.push(check(name, "loss of each token", loss, allowed.loss));
        let gradient = relative_distance(&run.gradients, &reference.gradients);
        checks.push(check(name, "gradient", gradient, allowed.gradient));
    };

    let in_order: Vec<usize> = (0..pieces.len()).collect();
    let alone: Result<Vec<Batch>, _> = pieces
        .iter()
        .map(|piece| Batch::packed(sequences, &[*piece]))
        .collect();
    compare("one by one", &Run::of(model, &alone?, scale)?, &in_order);
    let reversed: Vec<Piece> = pieces.iter().rev().copied().collect();
    let reversed = Batch::packed(sequences, &reversed)?;
    let backwards: Vec<usize> = in_order.iter().rev().copied().collect();
    compare(
        "packed in reverse order",
        &Run::of(model, &[reversed], scale)?,
        &backwards,
    );
    checks.extend(perturbation(model, sequences, pieces, scale)?);
    Ok(checks)
}

/// Changes every token of one sequence, which is not trained here: the losses of the others and all
/// gradients must stay the same bit for bit.
fn perturbation<D: Backend>(
    model: &mut TrainableModel<D>,
    sequences: &[Sequence],
    pieces: &[Piece],
    scale: f32,
) -> Result<Vec<Check>, RunError> {
    let changed = pieces.len() / 2;
    let mut own: Vec<Sequence> = Vec::with_capacity(pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        let range = piece.start as usize..(piece.start + piece.length) as usize;
        let sequence = &sequences[piece.sequence as usize];
        let tokens = sequence.tokens()[range.clone()].to_vec();
        let mut labels = vec![i64::from(IGNORED); tokens.len()];
        if index != changed {
            let targets = &sequence.targets()[range][..tokens.len().saturating_sub(1)];
            labels
                .iter_mut()
                .skip(1)
                .zip(targets)
                .for_each(|(l, t)| *l = i64::from(*t));
        }
        own.push(Sequence::from_labels(tokens, &labels)?);
    }
    let row = |own: &[Sequence]| {
        let pieces: Vec<Piece> = (0..own.len())
            .map(|index| Piece {
                sequence: index as u32,
                start: 0,
                length: own[index].len() as u32,
            })
            .collect();
        Batch::packed(own, &pieces)
    };
    let before = Run::of(model, &[row(&own)?], scale)?;
    // Ids that are used elsewhere are inside the vocabulary, so every token takes the id of
    // another.
    let all: Vec<u32> = own
        .iter()
        .flat_map(|s| s.tokens().iter().copied())
        .collect();
    let highest = all.iter().copied().max().unwrap_or(0);
    let lowest = all.iter().copied().min().unwrap_or(0);
    let tokens = own[changed].tokens().iter();
    let tokens: Vec<u32> = tokens
        .map(|&t| if t == highest { lowest } else { highest })
        .collect();
    let labels = vec![i64::from(IGNORED); tokens.len()];
    own[changed] = Sequence::from_labels(tokens, &labels)?;
    let after = Run::of(model, &[row(&own)?], scale)?;
    let name = "another sequence changed";
    let loss = largest_difference(&before.losses, &after.losses);
    let gradient = largest_difference(&before.gradients, &after.gradients);
    Ok(vec![
        check(name, "loss of each token", loss, 0.0),
        check(name, "gradient", gradient, 0.0),
    ])
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

/// Losses and gradients of some batches together.
struct Run {
    losses: Vec<f32>,
    gradients: Vec<f32>,
}

impl Run {
    fn of<D: Backend>(
        model: &mut TrainableModel<D>,
        batches: &[Batch],
        scale: f32,
    ) -> Result<Self, RunError> {
        model.zero_gradients()?;
        let mut losses = Vec::new();
        for batch in batches {
            let weights = vec![scale; batch.len()];
            let weights = TokenWeights::Known(&weights);
            losses.extend(model.forward_backward(batch, weights, SALT)?.per_token);
        }
        let mut gradients = Vec::new();
        for parameter in model.parameters() {
            gradients.extend(parameter.gradient.to_vec::<f32>()?);
        }
        Ok(Self { losses, gradients })
    }

    /// The losses in the order of the pieces, which lie in `order` here.
    fn losses_in(&self, order: &[usize], pieces: &[Piece]) -> Vec<f32> {
        let mut starts = vec![0; pieces.len()];
        let mut start = 0;
        for &piece in order {
            starts[piece] = start;
            start += pieces[piece].length as usize;
        }
        let pieces = starts.iter().zip(pieces);
        pieces
            .flat_map(|(&start, piece)| &self.losses[start..start + piece.length as usize])
            .copied()
            .collect()
    }
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
