//! Adapters on frozen NF4 weights: they learn, and their runs are as reproducible as others.

mod common;

use common::{LORA, Run, Watch, check_resuming, check_threads};
use tightrope_model::Backend;
use tightrope_testkit::cuda;
use tightrope_train::TrainError;

const NF4: &str = "lora.quantize=nf4";

fn fresh(sets: &[&str]) -> Run {
    let mut run = Run::new(&["schedule.kind=constant", "schedule.warmup_steps=0"]);
    run.set(LORA);
    run.set(sets);
    run
}

fn losses<D: Backend>(device: &D, steps: u64, sets: &[&str]) -> Vec<f64> {
    // All of the data in every step, so that losses fall smoothly.
    let mut run = fresh(&["batch.packs_per_step=16", "lora.dropout=0"]);
    run.set(&[&format!("run.max_steps={steps}")]);
    run.set(sets);
    run.watched_on(device, &Watch::new(None)).unwrap();
    run.losses()
}

#[test]
fn losses_fall_as_with_weights_that_are_not_quantised() {
    let cpu = Run::new(&[]).cpu();
    let (plain, nf4) = (losses(&cpu, 25, &[]), losses(&cpu, 25, &[NF4]));
    assert_eq!(nf4.len(), 25);
    assert_ne!(plain, nf4);
    let gain = plain[0] - plain[24];
    assert!(gain > 0.5, "{plain:?}");
    // The loss of precision in the weights matters little, and adapters compensate for it.
    assert!(
        (nf4[24] - plain[24]).abs() < 0.1 * gain,
        "{plain:?}\n{nf4:?}"
    );
    let on_cuda = losses(cuda(), 4, &[NF4]);
    assert_eq!(on_cuda.len(), 4);
    for (a, b) in nf4.iter().zip(&on_cuda) {
        assert!((a - b).abs() <= 1e-4 * b, "{nf4:?}\n{on_cuda:?}");
    }
}

/// Changed by `sets`, and long enough to be stopped twice.
fn short(sets: &[&str]) -> Run {
    fresh(&[&[NF4, "run.max_steps=5"], sets].concat())
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bits() {
    let cpu = Run::new(&[]).cpu();
    check_resuming(&cpu, || short(&[]));
    check_resuming(&cpu, || short(&["optimizer.state=8bit", "lora.r=300"]));
    check_resuming(&cpu, || short(&["precision=bf16"]));
    check_resuming(cuda(), || short(&["precision=bf16"]));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    check_threads(|| fresh(&[NF4]));
}

#[test]
fn another_storage_is_refused_on_resuming() {
    for (old, new) in [("none", "nf4"), ("nf4", "none")] {
        let mut run = fresh(&[&format!("lora.quantize={old}")]);
        run.go(Some(2)).unwrap();
        run.resume().set(&[&format!("lora.quantize={new}")]);
        let error = run.go(None).unwrap_err();
        assert!(matches!(error, TrainError::Changed { .. }), "{error}");
        let said = format!("lora.quantize: \"{old}\" -> \"{new}\"");
        assert!(error.to_string().contains(&said), "{error}");
        run.options.allow_change = true;
        run.go(None).unwrap();
    }
}
