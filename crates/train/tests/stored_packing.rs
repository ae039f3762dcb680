//! A run with a stored packing: the same bits as without, or an error that names the difference.

mod common;

use common::{LORA, Run, alike, dataset};
use std::{error::Error, fs, path::Path};
use tightrope_data::{ExampleKind, Examples};
use tightrope_packing::{Algorithm, Packer};
use tightrope_train::{
    Config,
    batches::{self, packer},
};

/// Packs the data of the run as its configuration says, and stores it.
fn store(run: &Run, file: &Path) {
    let config = run.config();
    let packing = packer(&config)
        .pack(&Examples::from(&run.train).packed_lengths())
        .unwrap();
    fs::write(file, serde_json::to_vec(&packing).unwrap()).unwrap();
}

fn named(file: &Path) -> String {
    format!("packing.file={}", file.display())
}

#[test]
fn the_bits_are_those_of_a_run_that_packs_itself() {
    for mode in ["best-fit", "streaming", "bucketed"] {
        let mode = format!("packing.mode={mode}");
        let sets = [LORA, &[mode.as_str()]].concat();
        let without = Run::new(&sets);
        let expected = without.result(&without.go(None).unwrap());
        let mut run = Run::new(&sets);
        let file = run.output.with_file_name("packing.json");
        store(&run, &file);
        run.set(&[&named(&file)]);
        let result = run.result(&run.go(None).unwrap());
        assert!(result == expected, "{mode}: the bits differ");
    }
}

#[test]
fn it_is_the_file_that_decides() {
    let mut run = Run::new(&["packing.max_sequences=2"]);
    let file = run.output.with_file_name("packing.json");
    store(&run, &file);
    run.sets
        .retain(|set| !set.starts_with("packing.max_sequences"));
    let packs = |run: &Run| {
        let config: Config = run.config();
        let prepared = tightrope_train::Prepared::new(&config, &run.train, None, 0).unwrap();
        prepared.batches().packing().len()
    };
    let anew = packs(&run);
    run.set(&[&named(&file)]);
    assert!(packs(&run) > anew, "{} against {anew}", packs(&run));
    assert!(packs(&run) >= 15);
}

#[test]
fn a_resumed_run_may_move_the_file_but_not_change_the_packs() {
    let stored = |seed: &str| {
        let mut run = Run::new(&[]);
        let file = run.output.with_file_name("packing.json");
        run.set(&[seed]);
        store(&run, &file);
        run.sets.pop();
        run.set(&[&named(&file)]);
        (run, file)
    };
    let (mut run, file) = stored("seed=42");
    let expected = run.result(&run.go(None).unwrap());
    fs::remove_dir_all(&run.output).unwrap();
    run.go(Some(3)).unwrap();
    let moved = file.with_file_name("moved.json");
    fs::rename(&file, &moved).unwrap();
    run.set(&[&named(&moved)]);
    let resumed = run.resume().go(None).unwrap();
    assert!(run.result(&resumed) == expected);

    let (mut run, file) = stored("seed=42");
    run.go(Some(3)).unwrap();
    let (_other, other_file) = stored("seed=7");
    fs::copy(other_file, file).unwrap();
    let error = run.resume().go(None).unwrap_err().to_string();
    assert!(
        error.contains("packing") && error.contains("--allow-change"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_is_named_with_the_file() {
    let fails = |sets: &[&str], change: &dyn Fn(&mut Run, &Path), expected: &[&str]| {
        let mut run = Run::new(sets);
        let file = run.output.with_file_name("packing.json");
        store(&run, &file);
        run.set(&[&named(&file)]);
        change(&mut run, &file);
        let error = run.go(None).unwrap_err();
        let (mut said, mut cause) = (error.to_string(), error.source());
        while let Some(deeper) = cause {
            said = format!("{said}: {deeper}");
            cause = deeper.source();
        }
        let error = said;
        for part in expected {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(error.starts_with(&file.display().to_string()), "{error}");
    };
    fails(
        &[],
        &|run, _| run.train = run.train.select((0..29).collect()),
        &[
            "packed from other data",
            "is of 30 sequences, the data has 29",
            "--write",
        ],
    );
    fails(
        &[],
        &|run, _| {
            let mut swapped: Vec<u32> = (0..30).collect();
            swapped.swap(3, 4);
            run.train = run.train.select(swapped);
        },
        &["sequence 3 had", "tokens when it was packed and has"],
    );
    fails(
        &[],
        &|run, _| run.train = dataset(30, 2),
        &["sequence 0 had"],
    );
    fails(
        &[],
        &|run, _| run.set(&["packing.capacity=40"]),
        &["packed to 32 tokens, but `packing.capacity` is 40"],
    );
    fails(
        &[],
        &|run, _| run.set(&["packing.mode=padded"]),
        &["holds packs, but `packing.mode` = \"padded\" needs padded batches"],
    );
    fails(
        &["packing.mode=padding-free"],
        &|run, _| run.set(&["batch.sequences_per_step=3"]),
        &["sequences, but `batch.sequences_per_step` is 3"],
    );
    fails(
        &[],
        &|run, _| run.set(&["packing.max_sequences=1"]),
        &["sequences, but `packing.max_sequences` is 1"],
    );
    fails(
        &[],
        &|_, file| fs::write(file, "{\"layout\": 3}").unwrap(),
        &["not a packing", "line 1"],
    );
    fails(
        &[],
        &|_, file| fs::remove_file(file).unwrap(),
        &["No such file"],
    );
}

#[test]
fn a_packing_that_cuts_pairs_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::new(&["packing.capacity=64", "objective.kind=dpo", "lora.r=2"]);
    run.train = dataset(12, 1);
    run.train.kind = ExampleKind::Pairs;
    run.set(&["packing.share_prefix=false"]);
    let wrapped = Packer {
        algorithm: Algorithm::Wrapped,
        ..packer(&run.config())
    };
    let packing = wrapped.pack(&Examples::from(&run.train).packed_lengths());
    let file = folder.path().join("packing.json");
    fs::write(&file, serde_json::to_vec(&packing.unwrap()).unwrap()).unwrap();
    run.set(&[&named(&file)]);
    let error = run.go(None).unwrap_err();
    let why = error.source().unwrap().to_string();
    assert!(why.contains("cuts pair"), "{why}");
    assert!(!run.output.join("checkpoints").exists());
}

#[test]
fn a_packing_with_other_beginnings_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("packing.json");
    for (pairs, kind) in [
        (true, "objective.kind=dpo"),
        (false, "objective.kind=cross-entropy"),
    ] {
        for shares in [false, true] {
            let mut run = Run::new(&["packing.capacity=128", kind, "lora.r=2"]);
            run.set(&[&format!("packing.share_prefix={shares}")]);
            run.train = alike(pairs);
            let config = run.config();
            let mut data = run.train.clone();
            batches::share(&config, &mut data, u64::MAX).unwrap();
            let lengths = Examples::from(&data).packed_lengths();
            let packing = packer(&config).pack(&lengths).unwrap();
            fs::write(&file, serde_json::to_vec(&packing).unwrap()).unwrap();
            run.set(&[&named(&file)]);
            run.go(None).unwrap();
            run.set(&[&format!("packing.share_prefix={}", !shares)]);
            run.options.overwrite = true;
            let error = run.go(None).unwrap_err();
            let why = error.source().unwrap().to_string();
            let expected = format!("packed with `packing.share_prefix` = {shares}");
            assert!(why.contains(&expected), "{why}");
        }
    }
}
