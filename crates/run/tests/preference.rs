//! Preference training against TRL: losses, rewards, gradients and weights of whole trajectories.
//! `tests/golden/preference.py` makes the cases.

use serde::Deserialize;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};
use tightrope_data::Progress;
use tightrope_run::train;
use tightrope_train::{Config, EvalRow, Observer, Rewards, RunOptions, StepRow, StopFlag};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/preference")
}

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: Vec<Step>,
    eval: Evals,
}

#[derive(Deserialize)]
struct Step {
    #[serde(flatten)]
    measured: Measured,
    grad_norm: f64,
}

#[derive(Deserialize)]
struct Evals {
    before: Measured,
    after: Measured,
}

#[derive(Deserialize)]
struct Measured {
    loss: f64,
    rewards_chosen: f64,
    rewards_rejected: f64,
    margin: f64,
    accuracy: f64,
}

impl Measured {
    #[track_caller]
    fn compare(&self, place: &str, loss: f64, rewards: Option<Rewards>, tolerance: f64) {
        let rewards = rewards.expect("rewards are reported");
        for (name, got, expected) in [
            ("loss", loss, self.loss),
            ("chosen", rewards.rewards_chosen, self.rewards_chosen),
            ("rejected", rewards.rewards_rejected, self.rewards_rejected),
            ("margin", rewards.rewards_margin, self.margin),
            ("accuracy", rewards.rewards_accuracy, self.accuracy),
        ] {
            let close = (got - expected).abs() <= tolerance * expected.abs().max(1.0);
            assert!(close, "{place}, {name}: {got}, expected {expected}");
        }
    }
}

/// Keeps what is reported.
#[derive(Default)]
struct Rows {
    steps: Mutex<Vec<StepRow>>,
    evaluations: Mutex<Vec<EvalRow>>,
}

impl Progress for Rows {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}

impl Observer for Rows {
    fn stepped(&self, row: &StepRow) {
        self.steps.lock().unwrap().push(row.clone());
    }
    fn evaluated(&self, row: &EvalRow) {
        self.evaluations.lock().unwrap().push(row.clone());
    }
}

/// A run on the golden data, changed by `sets`.
fn config(output: &Path, sets: &[&str]) -> Config {
    let golden = golden();
    let path = |name: &str| golden.join(name).display().to_string();
    let mut all = vec![
        format!("model={}", path("model")),
        format!("data.train={}", path("pairs.jsonl")),
        format!("data.eval={}", path("eval.jsonl")),
        format!("output={}", output.display()),
    ];
    for set in [
        "optimizer.weight_decay=0.0",
        "optimizer.max_grad_norm=0.0",
        "optimizer.learning_rate=1e-2",
        "schedule.kind=constant",
        "schedule.warmup_steps=0",
        "run.max_steps=4",
    ] {
        all.push(set.into());
    }
    all.extend(sets.iter().map(|set| (*set).to_owned()));
    Config::parse("", Path::new("golden.toml"), &all).unwrap()
}

fn run(config: &Config) -> Rows {
    let rows = Rows::default();
    let options = RunOptions {
        threads: 1,
        ..RunOptions::default()
    };
    train(config, &options, &StopFlag::default(), &rows).unwrap();
    rows
}

fn adapter() -> String {
    format!("adapter={}", golden().join("adapter").display())
}

/// The settings of a case; `None` if the loss is not offered.
fn settings(name: &str) -> Option<Vec<&'static str>> {
    Some(match name {
        "dpo" => vec!["objective.kind=dpo", "objective.reference=base"],
        "dpo_label_smoothing" => vec![
            "objective.kind=dpo",
            "objective.reference=base",
            "objective.label_smoothing=0.1",
        ],
        "dpo_nll" => vec![
            "objective.kind=dpo",
            "objective.reference=base",
            "objective.cross_entropy=1.0",
        ],
        "dpo_ipo" => vec!["objective.kind=ipo", "objective.reference=base"],
        "simpo" => vec!["objective.kind=simpo"],
        "cpo" => vec!["objective.kind=cpo"],
        "orpo" => vec!["objective.kind=orpo"],
        "dpo_full" => vec!["objective.kind=dpo", "optimizer.learning_rate=1e-3"],
        "dpo_hinge" | "dpo_robust" => return None,
        other => panic!("unknown case {other}"),
    })
}

fn weights(file: &Path) -> Vec<(String, Vec<f32>)> {
    let bytes = fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let values = tensor.data().as_chunks::<4>().0;
            let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes));
            (name.to_owned(), values.collect())
        })
        .collect();
    all.sort_by(|a: &(String, _), b| a.0.cmp(&b.0));
    all
}

#[test]
fn trajectories_are_those_of_trl() {
    let text = fs::read_to_string(golden().join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let cases: Vec<Case> = serde_json::from_value(cases["cases"].clone()).unwrap();
    let mut compared = 0;
    for case in cases {
        let Some(mut sets) = settings(&case.name) else {
            continue;
        };
        compared += 1;
        let adapter = adapter();
        let full = case.name == "dpo_full";
        if !full {
            sets.push(&adapter);
        }
        let folder = tempfile::tempdir().unwrap();
        let rows = run(&config(&folder.path().join("run"), &sets));
        let steps = rows.steps.into_inner().unwrap();
        assert_eq!(steps.len(), 4);
        for (row, expected) in steps.iter().zip(&case.steps) {
            let place = format!("{} step {}", case.name, row.step);
            expected
                .measured
                .compare(&place, row.loss, row.rewards, 3e-5);
            let close = (row.grad_norm / expected.grad_norm - 1.0).abs() < 1e-4;
            assert!(close, "{place}: {} {}", row.grad_norm, expected.grad_norm);
        }
        let evaluations = rows.evaluations.into_inner().unwrap();
        let [before, after] = &evaluations[..] else {
            panic!("{} evaluations", evaluations.len());
        };
        for (when, row, expected) in [
            ("before", before, &case.eval.before),
            ("after", after, &case.eval.after),
        ] {
            let place = format!("{} {when}", case.name);
            expected.compare(&place, row.eval_loss, row.rewards, 3e-5);
            assert_eq!(row.eval_perplexity, None);
        }
        let written = match full {
            true => "model/model.safetensors",
            false => "adapter/adapter_model.safetensors",
        };
        let got = weights(&folder.path().join("run").join(written));
        let file = format!("cases/{}.safetensors", case.name);
        let expected = weights(&golden().join(file));
        assert_eq!(got.len(), expected.len());
        for ((name, got), (other, expected)) in got.iter().zip(&expected) {
            assert_eq!(name, other);
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 5e-5, "{}, {name}", case.name);
            }
        }
    }
    assert_eq!(compared, 8);
}

/// The reference is the model that the run starts from, so nothing is preferred at first.
#[test]
fn a_continued_adapter_is_its_own_reference() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter();
    for (name, sets) in [
        ("continued", &["objective.kind=dpo", &adapter][..]),
        ("fresh", &["objective.kind=dpo", "lora.r=2"]),
    ] {
        let rows = run(&config(&folder.path().join(name), sets));
        let first = rows.steps.lock().unwrap()[0].clone();
        assert!((first.loss - 2f64.ln()).abs() < 1e-9, "{}", first.loss);
        let rewards = first.rewards.unwrap();
        assert_eq!(
            (rewards.rewards_margin, rewards.rewards_accuracy),
            (0.0, 0.0)
        );
    }
}

/// Packs of few pairs, batches of padded pairs, and a run that was stopped give the same losses as
/// one pack of all pairs, up to rounding, and a resumed run the same bits as a whole one.
#[test]
fn packing_and_resuming_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["dpo", "ipo", "simpo", "cpo", "orpo"] {
        let kind_set = format!("objective.kind={kind}");
        let losses = |name: &str, sets: &[&str]| -> Vec<f64> {
            let mut all = vec![kind_set.as_str(), "lora.r=2"];
            all.extend(sets);
            let output = folder.path().join(kind).join(name);
            let rows = run(&config(&output, &all));
            let steps = rows.steps.into_inner().unwrap();
            steps.iter().map(|row| row.loss).collect()
        };
        let whole = losses("whole", &[]);
        let padded = losses(
            "padded",
            &["packing.mode=padded", "batch.sequences_per_step=6"],
        );
        let packs = losses(
            "packs",
            &[
                "packing.capacity=32",
                "batch.accumulation=6",
                "data.max_length=16",
            ],
        );
        for other in [padded, packs] {
            for (a, b) in whole.iter().zip(&other) {
                assert!((a - b).abs() < 2e-5 * a.abs().max(1.0), "{kind}: {a} {b}");
            }
        }
    }
    for sets in [
        &["objective.kind=dpo", "lora.r=2"][..],
        &["objective.kind=dpo"],
    ] {
        let name = format!("resumed {}", sets.len());
        let two = config(
            &folder.path().join(&name),
            &[sets, &["run.max_steps=2"]].concat(),
        );
        run(&two);
        let four = config(&folder.path().join(&name), sets);
        let rows = Rows::default();
        let options = RunOptions {
            threads: 1,
            resume: true,
            ..RunOptions::default()
        };
        train(&four, &options, &StopFlag::default(), &rows).unwrap();
        let whole = run(&config(&folder.path().join(format!("{name} whole")), sets));
        let losses = |rows: &Rows| -> Vec<u64> {
            let steps = rows.steps.lock().unwrap();
            let of = |row: &StepRow| (row.step > 2).then(|| row.loss.to_bits());
            steps.iter().filter_map(of).collect()
        };
        assert_eq!(losses(&rows), losses(&whole));
    }
}

#[test]
fn data_of_another_kind_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |sets: &[&str]| {
        let config = config(&folder.path().join("run"), sets);
        let options = RunOptions::default();
        let result = train(&config, &options, &StopFlag::default(), &Rows::default());
        result.unwrap_err().to_string()
    };
    assert!(refused(&[]).contains("set `objective.kind` to dpo"));
    let text = folder.path().join("tokens.jsonl");
    fs::write(&text, "{\"input_ids\": [1, 2, 3]}\n").unwrap();
    let train = format!("data.train={}", text.display());
    let eval = format!("data.eval={}", text.display());
    let error = refused(&["objective.kind=dpo", &train, &eval]);
    assert!(error.contains("tokens.jsonl has none"), "{error}");
    let error = refused(&["objective.kind=dpo", &eval]);
    assert!(error.contains("tokens.jsonl has none"), "{error}");
}
