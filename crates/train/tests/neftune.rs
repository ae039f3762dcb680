//! Noise on embeddings: it does not depend on packing, it is off in evaluation, runs resume with it.

mod common;

use common::{LORA, Run, check_resuming, check_threads, dataset};
use tightrope_model::{Backend, TokenWeights};
use tightrope_packing::{Batch, Piece};
use tightrope_testkit::cuda;

const NOISE: &str = "run.neftune_noise_alpha=5";

/// Losses of the tokens of sequence 1, packed with these others.
fn losses<D: Backend>(device: &D, alpha: f64, salt: u64, order: &[usize]) -> Vec<u32> {
    let run = Run::new(&["packing.capacity=64"]);
    let mut model = run.model(device, &run.config(), 64);
    let data = dataset(3, 4);
    let piece = |&sequence: &usize| Piece {
        sequence: sequence as u32,
        start: 0,
        length: data.sequences.length(sequence) as u32,
    };
    let pieces: Vec<Piece> = order.iter().map(piece).collect();
    let batch = Batch::packed(&data.sequences, &pieces).unwrap();
    model.set_noise(alpha);
    let weights = vec![0.1; batch.len()];
    let loss = model
        .forward_backward(&batch, TokenWeights::Known(&weights), salt)
        .unwrap();
    let own = batch.segments().as_slice().iter();
    let own = own.filter(|segment| segment.sequence == Some(1));
    own.flat_map(|segment| segment.start..segment.start + segment.length)
        .map(|token| loss.per_token[token].to_bits())
        .collect()
}

fn check_packing<D: Backend>(device: &D) {
    let alone = losses(device, 5.0, 7, &[1]);
    for order in [&[0, 1][..], &[1, 2], &[2, 0, 1]] {
        assert!(losses(device, 5.0, 7, order) == alone, "{order:?}");
    }
    assert!(losses(device, 5.0, 8, &[1]) != alone);
    assert!(losses(device, 0.0, 7, &[1]) != alone);
    assert!(losses(device, 0.0, 7, &[1]) == losses(device, 0.0, 8, &[1]));
}

#[test]
fn the_noise_of_a_sequence_is_the_same_in_every_pack_on_the_cpu() {
    check_packing(&Run::new(&[]).cpu());
}

#[test]
fn the_noise_of_a_sequence_is_the_same_in_every_pack_on_cuda() {
    check_packing(cuda());
}

fn fresh(sets: &[&str]) -> Run {
    let mut run = Run::new(&["data.eval=given", "run.eval_every=3"]);
    run.set(sets);
    run.eval = Some(dataset(5, 9));
    run
}

#[test]
fn evaluations_have_no_noise() {
    let before = |sets: &[&str]| fresh(sets).go(None).unwrap().evaluation_before.unwrap();
    let (with, without) = (before(&[NOISE]), before(&[]));
    assert_eq!(with.loss.to_bits(), without.loss.to_bits());
    let first = |sets: &[&str]| fresh(sets).go(None).unwrap().first_loss.unwrap();
    assert_ne!(first(&[NOISE]), first(&[]));
}

#[test]
fn runs_with_noise_have_the_same_bits() {
    for sets in [vec![NOISE], [LORA, &[NOISE]].concat()] {
        check_resuming(&Run::new(&[]).cpu(), || fresh(&sets));
        check_threads(|| fresh(&sets));
        let result = |recompute: &str| {
            let run = fresh(&[&sets[..], &[recompute]].concat());
            let report = run.go(None).unwrap();
            run.result(&report)
        };
        assert!(result("run.recompute=false") == result("run.recompute=true"));
    }
}
