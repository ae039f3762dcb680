//! Sequences in one row do not influence each other, over all families, windows and rotations: they
//! have the same bits alone, packed anywhere or padded, for any number of threads, kept or
//! recomputed.

mod common;

use common::{batchings, cases, cpu, documents, options, step, training, whole};
use std::path::Path;
use tightrope_device::{Cpu, DType};
use tightrope_model::{
    Backend, BaseStorage, LoadOptions, LoraConfig, Loss, TargetModules, TokenWeights,
    TrainableModel, Training,
};
use tightrope_packing::{Batch, IGNORED, Piece, Sequence};
use tightrope_testkit::{cuda, relative_distance};

fn load(
    case: &Path,
    training: &Training,
    options: &LoadOptions,
    threads: usize,
) -> TrainableModel<Cpu> {
    TrainableModel::load(&cpu(threads), case, training, options).unwrap()
}

/// With the gradient of the sum of all losses.
fn forward_backward(model: &mut TrainableModel<Cpu>, batch: &Batch, salt: u64) -> Loss {
    let weights = vec![1.0; batch.len()];
    let weights = TokenWeights::Known(&weights);
    model.forward_backward(batch, weights, salt).unwrap()
}

/// The rows of each sequence in a batch.
fn rows(batch: &Batch) -> Vec<(usize, std::ops::Range<usize>)> {
    let segments = batch.segments().as_slice().iter();
    segments
        .filter_map(|s| Some((s.sequence?, s.start..s.start + s.length)))
        .collect()
}

/// Compares bits, so that NaN equals NaN and 0 differs from -0.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn logits_are_the_same_bits_alone_packed_and_padded() {
    for case in cases() {
        for lora in [false, true] {
            let sequences = documents(&case);
            let mut model = load(&case, &training(lora), &options(&case, lora, &sequences), 2);
            let vocabulary = model.config().architecture().vocabulary;
            let mut first: Vec<Option<Vec<u32>>> = vec![None; sequences.len()];
            for (way, batches) in batchings(&sequences) {
                for batch in &batches {
                    let logits = model.logits(batch).unwrap();
                    let losses = model.evaluate(batch).unwrap().per_token;
                    for (sequence, rows) in rows(batch) {
                        let mut found =
                            bits(&logits[rows.start * vocabulary..rows.end * vocabulary]);
                        found.extend(bits(&losses[rows]));
                        let before = first[sequence].get_or_insert_with(|| found.clone());
                        assert!(*before == found, "{case:?}, {way}, sequence {sequence}");
                    }
                }
            }
        }
    }
}

#[test]
fn loss_and_gradients_agree_between_batchings() {
    for case in cases() {
        for lora in [false, true] {
            let sequences = documents(&case);
            let mut model = load(&case, &training(lora), &options(&case, lora, &sequences), 2);
            let mut all = batchings(&sequences).into_iter();
            let (loss, gradients) = step(&mut model, &all.next().unwrap().1);
            for (way, batches) in all {
                let (other_loss, others) = step(&mut model, &batches);
                let close = (other_loss / loss - 1.0).abs() <= 1e-6;
                assert!(close, "{case:?}, {way}: {other_loss} and {loss}");
                for ((name, gradient), (_, other)) in gradients.iter().zip(&others) {
                    let reference: Vec<f64> = gradient.iter().map(|&g| g.into()).collect();
                    let close = relative_distance(other, &reference) <= 1e-5;
                    assert!(close, "{case:?}, {way}: {name}");
                }
            }
        }
    }
}

/// The sequences before and after one of them gets other tokens; it has no targets.
fn perturbed(sequences: &[Sequence], changed: usize) -> [Vec<Sequence>; 2] {
    let vocabulary = 96;
    let ignored = vec![i64::from(IGNORED); sequences[changed].len()];
    [0, 1].map(|by| {
        let mut sequences = sequences.to_vec();
        let tokens = sequences[changed].tokens().iter();
        let tokens = tokens.map(|&id| (id + by * 17) % vocabulary).collect();
        sequences[changed] = Sequence::from_labels(tokens, &ignored).unwrap();
        sequences
    })
}

/// With full training, LoRA, and LoRA on weights in NF4; in the first `ways` to put everything into
/// one batch.
fn check_perturbation<D: Backend>(device: &D, precision: DType, ways: usize) {
    for case in cases() {
        for (lora, base) in [
            (false, BaseStorage::AsStored),
            (true, BaseStorage::AsStored),
            (true, BaseStorage::Nf4),
        ] {
            let sequences = documents(&case);
            let options = LoadOptions {
                precision,
                base,
                ..options(&case, lora, &sequences)
            };
            let mut model = TrainableModel::load(device, &case, &training(lora), &options).unwrap();
            let vocabulary = model.config().architecture().vocabulary;
            // The longest, which fills several blocks and windows.
            let changed = (0..sequences.len())
                .max_by_key(|&i| sequences[i].len())
                .unwrap();
            let [before, after] = perturbed(&sequences, changed);
            let batches = batchings(&before).into_iter().zip(batchings(&after));
            let single = batches.filter(|((_, before), _)| before.len() == 1);
            for ((way, before), (_, after)) in single.take(ways) {
                let logits = [&before, &after].map(|b| model.logits(&b[0]).unwrap());
                for (sequence, rows) in rows(&before[0]) {
                    let range = rows.start * vocabulary..rows.end * vocabulary;
                    let same = bits(&logits[0][range.clone()]) == bits(&logits[1][range]);
                    assert_eq!(same, sequence != changed, "{case:?}, {way}, {sequence}");
                }
                let (loss, gradients) = step(&mut model, &before);
                let (other_loss, others) = step(&mut model, &after);
                assert_eq!(loss.to_bits(), other_loss.to_bits(), "{case:?}, {way}");
                for ((name, gradient), (_, other)) in gradients.iter().zip(&others) {
                    // Equal as numbers: adding a zero of either sign changes nothing.
                    assert!(gradient == other, "{case:?}, {way}: {name}");
                }
            }
        }
    }
}

#[test]
fn changing_a_sequence_leaves_the_others_bitwise_alone() {
    check_perturbation(&cpu(2), DType::F32, usize::MAX);
    check_perturbation(&cpu(2), DType::BF16, 2);
}

#[test]
fn changing_a_sequence_leaves_the_others_bitwise_alone_on_cuda() {
    check_perturbation(cuda(), DType::F32, 1);
    check_perturbation(cuda(), DType::BF16, 1);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for case in cases() {
        for lora in [false, true] {
            let sequences = documents(&case);
            let (_, batches) = batchings(&sequences).remove(0);
            let run = |threads| {
                let mut model = load(
                    &case,
                    &training(lora),
                    &options(&case, lora, &sequences),
                    threads,
                );
                let (loss, gradients) = step(&mut model, &batches);
                let gradients = gradients.iter().flat_map(|(_, gradient)| bits(gradient));
                (loss.to_bits(), gradients.collect::<Vec<_>>())
            };
            let one = run(1);
            assert!(one == run(2), "{case:?}: two threads");
            assert!(one == run(3), "{case:?}: three threads");
        }
    }
}

#[test]
fn recomputation_gives_the_same_bits() {
    for case in cases() {
        let sequences = documents(&case);
        let (_, batches) = batchings(&sequences).remove(0);
        let adapter = LoraConfig {
            dropout: 0.25,
            ..LoraConfig::default()
        };
        let dora = LoraConfig {
            dora: true,
            ..adapter.clone()
        };
        for training in [
            Training::Full,
            Training::Lora(adapter),
            Training::Lora(dora.clone()),
        ] {
            // The case's adapter has no magnitudes.
            let lora = training != Training::Full && training != Training::Lora(dora.clone());
            let run = |recompute| {
                let options = LoadOptions {
                    recompute,
                    ..options(&case, lora, &sequences)
                };
                let mut model = load(&case, &training, &options, 2);
                let (loss, gradients) = step(&mut model, &batches);
                let gradients = gradients.iter().flat_map(|(_, gradient)| bits(gradient));
                (loss.to_bits(), gradients.collect::<Vec<_>>())
            };
            assert!(run(false) == run(true), "{case:?}, LoRA: {lora}");
        }
    }
}

#[test]
fn dropout_depends_on_the_step_and_on_the_sequence_not_on_the_batch() {
    for dora in [false, true] {
        dropout_depends_on_the_sequence_alone(dora);
    }
}

fn dropout_depends_on_the_sequence_alone(dora: bool) {
    let case = &cases()[0];
    let sequences = documents(case);
    // The case's adapter has no magnitudes; a new one has to be moved first.
    let options = options(case, !dora, &sequences);
    let lora = LoraConfig {
        dora,
        ..LoraConfig::default()
    };
    let dropped = Training::Lora(LoraConfig {
        dropout: 0.5,
        ..lora.clone()
    });
    let load_moved = |training: &Training| {
        let mut model = load(case, training, &options, 2);
        for parameter in model.parameters().into_iter().filter(|_| dora) {
            let weight = parameter.weight.to_vec::<f32>().unwrap();
            let moved: Vec<f32> = weight.iter().map(|w| w + 0.02).collect();
            parameter.weight.write(&moved).unwrap();
        }
        model
    };
    let mut model = load_moved(&dropped);
    let mut losses = |batches: &[Batch], salt| {
        let mut losses = vec![Vec::new(); sequences.len()];
        for batch in batches {
            let loss = forward_backward(&mut model, batch, salt);
            for (sequence, rows) in rows(batch) {
                losses[sequence] = bits(&loss.per_token[rows]);
            }
        }
        losses
    };
    let mut all = batchings(&sequences).into_iter();
    let (_, packed) = all.next().unwrap();
    let reference = losses(&packed, 7);
    assert_ne!(reference, losses(&packed, 8));
    for (way, batches) in all {
        assert!(reference == losses(&batches, 7), "{way}");
    }
    // Without training, nothing is dropped.
    let mut plain = load_moved(&Training::Lora(lora));
    let evaluated = model.evaluate(&packed[0]).unwrap();
    assert_eq!(evaluated, plain.evaluate(&packed[0]).unwrap());
}

#[test]
fn an_adapter_on_few_layers_has_the_same_gradients_as_on_all() {
    // Whatever is frozen below is skipped; what remains must not change.
    let case = &cases()[0];
    let sequences = documents(case);
    let (_, batches) = batchings(&sequences).remove(0);
    let run = |targets: TargetModules| {
        let training = Training::Lora(LoraConfig {
            target_modules: targets,
            ..LoraConfig::default()
        });
        let mut model = load(case, &training, &options(case, false, &sequences), 2);
        step(&mut model, &batches).1
    };
    let all = run(TargetModules::AllLinear);
    for target in [
        "layers.2.mlp.down_proj",
        "layers.1.self_attn.k_proj",
        "o_proj",
    ] {
        let some = run(TargetModules::list([target]));
        assert!(!some.is_empty() && some.len() < all.len());
        for (name, gradient) in &some {
            let (_, reference) = all.iter().find(|(other, _)| other == name).unwrap();
            // `B` is zero, so the other adapters change nothing in the forward pass.
            let same = gradient == reference;
            assert!(same, "{target}: {name}");
        }
    }
}

#[test]
fn empty_and_untrained_batches_are_harmless() {
    let case = &cases()[0];
    let sequences = documents(case);
    let mut model = load(case, &Training::Full, &options(case, false, &sequences), 2);
    model.zero_gradients().unwrap();
    let empty = forward_backward(&mut model, &Batch::default(), 0);
    assert_eq!((empty.sum, empty.trained_tokens), (0.0, 0));
    assert_eq!(empty.mean(), None);
    let one = sequences.iter().position(|s| s.len() == 1).unwrap();
    let one: Piece = whole(&sequences, one);
    let batch = Batch::packed(&sequences, &[one]).unwrap();
    assert_eq!(forward_backward(&mut model, &batch, 0).per_token, [0.0]);
    for parameter in model.parameters() {
        let gradient = parameter.gradient.to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|&g| g == 0.0), "{}", parameter.name);
    }
}
