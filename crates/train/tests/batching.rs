//! A step computes the same result for every way of batching.

mod common;

use common::{Run, dataset};
use tightrope_testkit::relative_distance;

/// Loss, gradient norm and weights after one step over all the data.
fn one_step(sets: &[&str]) -> (f64, f64, Vec<f32>) {
    let mut run = Run::new(&[
        "run.max_steps=1",
        "schedule.kind=constant",
        "schedule.warmup_steps=0",
    ]);
    run.set(&["optimizer.eps=1e-3"]);
    run.set(sets);
    run.train = dataset(12, 5);
    let report = run.go(None).unwrap();
    let row = &run.rows()[0];
    assert_eq!(
        row["trained_tokens"],
        (0..12)
            .map(|index| run.train.sequences.trained_tokens(index))
            .sum::<usize>()
    );
    let bytes = run.result(&report).0;
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (values, _) = bytes[8 + header..].as_chunks::<4>();
    let weights = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
    let number = |key: &str| row[key].as_f64().unwrap();
    (number("loss"), number("grad_norm"), weights)
}

#[test]
fn accumulation_and_every_mode_give_the_step_of_one_big_batch() {
    let (loss, norm, weights) = one_step(&["batch.packs_per_step=12"]);
    let expected: Vec<f64> = weights.iter().map(|&w| w.into()).collect();
    let ways: &[&[&str]] = &[
        &["batch.accumulation=12"],
        &["batch.packs_per_step=2", "batch.accumulation=6"],
        &["packing.mode=first-fit", "batch.accumulation=12"],
        &["packing.mode=spfhp", "batch.accumulation=12"],
        &["packing.mode=lpfhp", "batch.accumulation=12"],
        &["packing.mode=streaming", "batch.accumulation=12"],
        &["packing.max_sequences=1", "batch.accumulation=12"],
        &["packing.mode=padding-free", "batch.sequences_per_step=12"],
        &["packing.mode=padded", "batch.sequences_per_step=12"],
        &[
            "packing.mode=padded",
            "batch.sequences_per_step=12",
            "batch.accumulation=3",
        ],
        &[
            "packing.mode=bucketed",
            "batch.sequences_per_step=12",
            "batch.accumulation=3",
        ],
        &["batch.sequences_per_step=12"],
        &["packing.mode=streaming", "batch.sequences_per_step=12"],
        &["packing.max_sequences=1", "batch.sequences_per_step=12"],
    ];
    for way in ways {
        let (l, n, w) = one_step(way);
        assert!(
            (l - loss).abs() <= 1e-6 * loss,
            "{way:?}: loss {l} is not {loss}"
        );
        assert!(
            (n - norm).abs() <= 1e-5 * norm,
            "{way:?}: norm {n} is not {norm}"
        );
        let distance = relative_distance(&w, &expected);
        assert!(distance <= 1e-6, "{way:?}: weights differ by {distance:e}");
    }
}

/// With `sequences_per_step`, every mode takes the same sequences in each step, over several
/// epochs, and so has the same losses.
#[test]
fn steps_of_sequences_are_the_same_packed_and_padded() {
    let losses = |sets: &[&str]| -> Vec<[f64; 3]> {
        let mut run = Run::new(&["run.max_steps=15", "batch.sequences_per_step=5"]);
        run.set(&["schedule.kind=constant", "optimizer.eps=1e-3"]);
        run.set(sets);
        run.train = dataset(23, 9);
        run.go(None).unwrap();
        let number = |row: &serde_json::Value, key| row[key].as_f64().unwrap();
        let keys = ["loss", "grad_norm", "trained_tokens"];
        let rows = run.rows();
        rows.iter()
            .map(|row| keys.map(|key| number(row, key)))
            .collect()
    };
    let padded = losses(&["packing.mode=padded"]);
    assert_eq!(padded.len(), 3 * 5);
    let differ = padded.iter().zip(&padded[5..]).all(|(a, b)| a[2] != b[2]);
    assert!(differ, "each epoch deals the sequences out anew");
    for way in [
        &[][..],
        &["packing.mode=spfhp"],
        &["packing.mode=padding-free"],
        &[
            "packing.mode=padded",
            "batch.sequences_per_step=5",
            "batch.accumulation=5",
        ],
    ] {
        for (step, (own, expected)) in losses(way).iter().zip(&padded).enumerate() {
            assert_eq!(own[2], expected[2], "{way:?}, step {step}");
            for (own, expected) in own.iter().zip(expected) {
                let distance = (own - expected).abs();
                assert!(
                    distance <= 1e-5 * expected,
                    "{way:?}, step {step}: {own} {expected}"
                );
            }
        }
    }
}

#[test]
fn padding_is_counted_apart_from_real_tokens() {
    let row = |sets: &[&str]| {
        let mut run = Run::new(&["run.max_steps=1"]);
        run.set(sets);
        run.train = dataset(12, 5);
        run.go(None).unwrap();
        run.rows().remove(0)
    };
    let data = dataset(12, 5).sequences;
    let lengths: Vec<usize> = (0..12).map(|index| data.length(index)).collect();
    let tokens: usize = lengths.iter().sum();
    let padded = row(&["packing.mode=padded", "batch.sequences_per_step=12"]);
    assert_eq!(padded["tokens"], tokens);
    assert_eq!(
        padded["padding_tokens"],
        12 * lengths.iter().max().unwrap() - tokens
    );
    let packed = row(&["batch.accumulation=12"]);
    assert_eq!(
        (&packed["tokens"], &packed["padding_tokens"]),
        (&tokens.into(), &0.into())
    );
}
