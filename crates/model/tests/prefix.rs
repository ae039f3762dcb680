//! Sequences that share their beginning compute what they compute with a copy of it, over all
//! families, windows and rotations, on the CPU and on an emulated GPU.

mod common;

use common::{capacity, cases, cpu, files::case, options, step, training};
use std::path::Path;
use tightrope_device::DType;
use tightrope_model::{Backend, LoadOptions, ModelError, TokenWeights, TrainableModel};
use tightrope_packing::{Batch, Groups, IGNORED, Piece, Sequence, Units};
use tightrope_testkit::{cuda, relative_distance};

/// Length of a prompt, and of each answer.
type Family = (usize, &'static [usize]);
const FAMILIES: [Family; 4] = [(3, &[2, 1]), (17, &[4, 21, 1]), (9, &[6]), (2, &[65, 3])];

/// The same answers with shared prompts, and each with a copy of its prompt.
#[derive(Clone)]
struct Answers {
    shared: Groups,
    alone: Vec<Sequence>,
}

/// The token at a place of a family; `answer` is 0 for the prompt.
fn token(family: usize, answer: usize, index: usize) -> u32 {
    ((family * 31 + answer * 17 + index * 7 + index * index) % 90) as u32 + 1
}

/// Answers of families whose sequences are no longer than `longest`; `change` changes tokens.
fn answers(longest: u64, change: impl Fn(usize, usize, usize) -> u32) -> Answers {
    let mut all = Answers {
        shared: Groups::default(),
        alone: Vec::new(),
    };
    let sequence = |tokens: &[u32], untrained: usize| {
        let label = |(index, &token): (usize, &u32)| match index < untrained {
            true => i64::from(IGNORED),
            false => i64::from(token),
        };
        let labels: Vec<i64> = tokens.iter().enumerate().map(label).collect();
        Sequence::from_labels(tokens.to_vec(), &labels).unwrap()
    };
    for (family, (prompt, lengths)) in FAMILIES.iter().enumerate() {
        let tokens = |answer: usize, length: usize| -> Vec<u32> {
            let tokens = (0..length).map(|index| change(family, answer, index));
            tokens.collect()
        };
        let beginning = tokens(0, *prompt);
        if lengths
            .iter()
            .any(|length| (prompt + length) as u64 > longest)
        {
            continue;
        }
        // The last token of the prompt has another target in each answer.
        let border = prompt - 1;
        let mut parts = vec![(sequence(&beginning[..border], border), None)];
        for (answer, &length) in lengths.iter().enumerate() {
            let whole = [beginning.clone(), tokens(answer + 1, length)].concat();
            parts.push((sequence(&whole[border..], 1), Some(0)));
            all.alone.push(sequence(&whole, *prompt));
        }
        all.shared.push(parts).unwrap();
    }
    all
}

fn pieces(units: &(impl Units + ?Sized)) -> Vec<Piece> {
    let lengths = units.lengths().into_iter().zip(0..);
    lengths
        .map(|(length, sequence)| Piece {
            sequence,
            start: 0,
            length,
        })
        .collect()
}

impl Answers {
    fn shared(&self) -> Batch {
        Batch::packed(&self.shared, &pieces(&self.shared)).unwrap()
    }

    fn alone(&self) -> Vec<Batch> {
        let pieces = pieces(self.alone.as_slice());
        let batch = |piece: &Piece| Batch::packed(self.alone.as_slice(), &[*piece]).unwrap();
        pieces.iter().map(batch).collect()
    }
}

/// The rows of each answer in a batch of shared prompts, without those of the prompt.
fn answers_of(batch: &Batch) -> Vec<std::ops::Range<usize>> {
    let segments = batch.segments().as_slice().iter();
    let answers = segments.filter(|segment| segment.prefix.is_some());
    answers.map(|s| s.start..s.start + s.length).collect()
}

fn load<D: Backend>(
    device: &D,
    case: &Path,
    lora: bool,
    precision: DType,
) -> (TrainableModel<D>, Answers) {
    let room: usize = FAMILIES
        .iter()
        .map(|f| f.0 + f.1.iter().sum::<usize>())
        .sum();
    let options = LoadOptions {
        precision,
        ..options(case, lora, &answers(u64::MAX, token).alone)
    };
    assert!(room <= capacity(&answers(u64::MAX, token).alone));
    let model = TrainableModel::load(device, case, &training(lora), &options).unwrap();
    let longest = model.config().architecture().rope.fixed_length();
    let answers = answers(longest, token);
    assert!(!answers.alone.is_empty(), "{case:?}");
    (model, answers)
}

fn for_each(test: impl Fn(&Path, bool)) {
    for case in cases() {
        for lora in [false, true] {
            test(&case, lora);
        }
    }
}

/// Each case once, with all weights and with adapters in turn: the emulator is slow.
fn for_each_in_turn(test: impl Fn(&Path, bool)) {
    for (index, case) in cases().iter().enumerate() {
        test(case, index % 2 == 0);
    }
}

#[test]
fn logits_and_losses_are_the_same_bits_as_alone() {
    for_each(|case, lora| {
        let (mut model, answers) = load(&cpu(2), case, lora, DType::F32);
        let vocabulary = model.config().architecture().vocabulary;
        let batch = answers.shared();
        let losses = model.evaluate(&batch).unwrap().per_token;
        let logits = model.logits(&batch).unwrap();
        for (rows, alone) in answers_of(&batch).into_iter().zip(answers.alone()) {
            let from = alone.len() - rows.len();
            let expected = &model.evaluate(&alone).unwrap().per_token[from..];
            assert!(losses[rows.clone()] == *expected, "{case:?}, LoRA: {lora}");
            let expected = &model.logits(&alone).unwrap()[from * vocabulary..];
            let rows = rows.start * vocabulary..rows.end * vocabulary;
            assert!(logits[rows] == *expected, "{case:?}, LoRA: {lora}");
        }
    });
}

/// Tolerances of losses of tokens and of each gradient.
fn check_gradients<D: Backend>(
    device: &D,
    precision: DType,
    (loss, gradient): (f32, f64),
    (case, lora): (&Path, bool),
) {
    let (mut model, answers) = load(device, case, lora, precision);
    let place = format!("{case:?}, LoRA: {lora}");
    let batch = answers.shared();
    let losses = model.evaluate(&batch).unwrap().per_token;
    for (rows, alone) in answers_of(&batch).into_iter().zip(answers.alone()) {
        let from = alone.len() - rows.len();
        let expected = &model.evaluate(&alone).unwrap().per_token[from..];
        for (got, expected) in losses[rows].iter().zip(expected) {
            let close = (got - expected).abs() <= loss * expected.max(1.0);
            assert!(close, "{place}: {got} {expected}");
        }
    }
    let (_, expected) = step(&mut model, &answers.alone());
    let (_, got) = step(&mut model, &[batch]);
    for ((name, got), (_, expected)) in got.iter().zip(&expected) {
        let expected: Vec<f64> = expected.iter().map(|&g| g.into()).collect();
        let distance = relative_distance(got, &expected);
        let close = distance <= gradient;
        assert!(close, "{place}, {name}: {distance:e}");
    }
}

#[test]
fn gradients_are_those_of_the_answers_alone() {
    for_each(|case, lora| check_gradients(&cpu(2), DType::F32, (0.0, 1e-5), (case, lora)));
    for_each_in_turn(|case, lora| {
        check_gradients(&cpu(2), DType::BF16, (0.0, 8e-2), (case, lora));
    });
}

#[test]
fn gradients_are_those_of_the_answers_alone_on_cuda() {
    for_each_in_turn(|case, lora| {
        check_gradients(cuda(), DType::F32, (1e-5, 1e-5), (case, lora));
        check_gradients(cuda(), DType::BF16, (5e-2, 8e-2), (case, lora));
    });
}

/// Losses of all tokens, and the gradient of the sum over those of one answer.
fn of_answer<D: Backend>(
    model: &mut TrainableModel<D>,
    batch: &Batch,
    answer: usize,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut weights = vec![0.0; batch.len()];
    weights[answers_of(batch)[answer].clone()].fill(1.0);
    model.zero_gradients().unwrap();
    let weights = TokenWeights::Known(&weights);
    let losses = model.forward_backward(batch, weights, 0).unwrap().per_token;
    let parameters = model.parameters();
    let gradients = parameters.iter().map(|p| p.gradient.to_vec().unwrap());
    (losses, gradients.collect())
}

/// Another token in one answer changes nothing in the other one; another one in the prompt changes
/// both.
fn check_perturbation<D: Backend>(device: &D, precision: DType, (case, lora): (&Path, bool)) {
    let (mut model, before) = load(device, case, lora, precision);
    let longest = model.config().architecture().rope.fixed_length();
    let changed = |place: (usize, usize, usize)| {
        answers(longest, move |family, answer, index| {
            let other = u32::from((family, answer, index) == place);
            token(family, answer, index) + 3 * other
        })
        .shared()
    };
    let before = before.shared();
    let rows = answers_of(&before);
    // The first token of the first answer, and one late in the prompt.
    for (place, stays) in [((0, 1, 0), true), ((0, 0, 1), false)] {
        let after = changed(place);
        assert_ne!(before.tokens(), after.tokens());
        for answer in 0..2 {
            let (losses, gradients) = of_answer(&mut model, &before, answer);
            let (others, changed) = of_answer(&mut model, &after, answer);
            let rows = rows[answer].clone();
            let same = losses[rows.clone()] == others[rows];
            assert_eq!(same, stays && answer == 1, "{case:?}, {place:?}, {answer}");
            let same = gradients == changed;
            assert_eq!(same, stays && answer == 1, "{case:?}, {place:?}, {answer}");
        }
    }
}

#[test]
fn answers_see_their_prompt_and_not_each_other() {
    for_each(|case, lora| check_perturbation(&cpu(2), DType::F32, (case, lora)));
    for_each_in_turn(|case, lora| check_perturbation(&cpu(2), DType::BF16, (case, lora)));
}

#[test]
fn answers_see_their_prompt_and_not_each_other_on_cuda() {
    for name in ["gemma2", "qwen3_window", "smollm3"] {
        for dtype in [DType::F32, DType::BF16] {
            check_perturbation(cuda(), dtype, (&case(name), true));
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for_each(|case, lora| {
        let run = |threads| {
            let (mut model, answers) = load(&cpu(threads), case, lora, DType::F32);
            step(&mut model, &[answers.shared()])
        };
        let one = run(1);
        for threads in [2, 3] {
            assert!(one == run(threads), "{case:?}, {threads} threads");
        }
    });
}

#[test]
fn prompts_whose_rotation_depends_on_the_answer_are_refused() {
    let mut refused = 0;
    for case in cases() {
        let (mut model, _) = load(&cpu(1), &case, false, DType::F32);
        let all = answers(u64::MAX, token).shared();
        match model.evaluate(&all) {
            Err(ModelError::Prefix { length, fixed, .. }) => {
                assert!(length > fixed);
                refused += 1;
            }
            result => drop(result.unwrap()),
        }
    }
    assert_eq!(refused, 2);
}
