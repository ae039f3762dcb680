//! Preference training on every device.

mod common;

use common::{LORA, Run, Watch, alike, check_resuming, check_threads};
use tightrope_data::ExampleKind;
use tightrope_device::Device;
use tightrope_model::Backend;
use tightrope_testkit::cuda;

/// Losses and gradient norms of two steps.
fn steps<D: Backend + Device>(device: &D, sets: &[&str]) -> Vec<[f64; 2]> {
    let mut run = Run::new(sets);
    // One pack of all.
    run.set(&["packing.capacity=1024", "run.max_steps=2"]);
    run.train = alike(true);
    if sets.contains(&"objective.kind=kto") {
        run.train.kind = ExampleKind::Labelled;
    }
    run.train.desirable = (0..run.train.sequences.len()).map(|i| i % 3 > 0).collect();
    run.watched_on(device, &Watch::new(None)).unwrap();
    let number = |row: &serde_json::Value, key: &str| row[key].as_f64().unwrap();
    let rows = run.rows();
    let rows = rows.iter();
    rows.map(|row| [number(row, "loss"), number(row, "grad_norm")])
        .collect()
}

#[test]
fn an_emulated_gpu_and_prompts_of_their_own_agree_with_shared_prompts() {
    for kind in ["dpo", "ipo", "simpo", "cpo", "orpo", "kto", "reward"] {
        let kind_set = format!("objective.kind={kind}");
        // One mask for a shared prompt differs from one for each copy of it.
        for adapter in [&["lora.r=4"][..], &[]] {
            let sets = [&[kind_set.as_str(), "precision=f32"], adapter].concat();
            let run = Run::new(&[]);
            let (cpu, gpu) = (steps(&run.cpu(), &sets), steps(cuda(), &sets));
            assert_eq!(cpu.len(), 2);
            let unshared = [&sets[..], &["packing.share_prefix=false"]].concat();
            for other in [gpu, steps(&run.cpu(), &unshared)] {
                for (a, b) in cpu.iter().flatten().zip(other.iter().flatten()) {
                    assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{kind}: {a} {b}");
                }
            }
        }
    }
}

/// Groups of sequences with dropout, and pairs: the same bits for any number of threads and when
/// resumed.
#[test]
fn shared_beginnings_depend_on_neither_threads_nor_resuming() {
    for (pairs, sets) in [
        (true, "objective.kind=orpo"),
        (false, "packing.window=1024"),
    ] {
        let fresh = || {
            let mut run = Run::new(LORA);
            run.set(&[sets, "packing.capacity=64", "packing.share_prefix=true"]);
            run.train = alike(pairs);
            run
        };
        check_threads(fresh);
        check_resuming(&fresh().cpu(), fresh);
    }
}

/// What is trained does not depend on sharing: the same losses, fewer tokens.
#[test]
fn groups_have_the_losses_of_their_sequences() {
    let rows = |share: &str| {
        let mut run = Run::new(&["packing.capacity=1024", "data.max_length=64", share]);
        run.train = alike(false);
        run.watched(&Watch::new(None)).unwrap();
        run.rows()
    };
    let shared = rows("packing.share_prefix=true");
    let whole = rows("packing.share_prefix=false");
    assert_eq!(shared.len(), 7);
    for (shared, whole) in shared.iter().zip(&whole) {
        let number = |row: &serde_json::Value, key: &str| row[key].as_f64().unwrap();
        for key in ["loss", "grad_norm"] {
            let (a, b) = (number(shared, key), number(whole, key));
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{key}: {a} {b}");
        }
        assert_eq!(shared["trained_tokens"], whole["trained_tokens"]);
        assert!(number(shared, "tokens") < 0.8 * number(whole, "tokens"));
    }
}
