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
use tightrope_run::{evaluate_config, train};
use tightrope_train::{Config, EvalRow, Observer, Rewards, RunOptions, StepRow, StopFlag};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
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
    #[serde(flatten)]
    rewards: Rewards,
    margin: Option<f64>,
    accuracy: Option<f64>,
}

impl Measured {
    #[track_caller]
    fn compare(&self, place: &str, loss: f64, got: &Rewards, tolerance: f64) {
        let expected = &self.rewards;
        for (name, got, expected) in [
            ("loss", Some(loss), Some(self.loss)),
            ("chosen", got.rewards_chosen, expected.rewards_chosen),
            ("rejected", got.rewards_rejected, expected.rewards_rejected),
            ("margin", got.rewards_margin, self.margin),
            ("accuracy", got.rewards_accuracy, self.accuracy),
            ("kl", got.kl, expected.kl),
        ] {
            assert_eq!(got.is_some(), expected.is_some(), "{place}, {name}");
            let (Some(got), Some(expected)) = (got, expected) else {
                continue;
            };
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
    notices: Mutex<Vec<String>>,
}

impl Progress for Rows {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}

impl Observer for Rows {
    fn notice(&self, text: &str) {
        self.notices.lock().unwrap().push(text.to_owned());
    }
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
        format!("model={}", path("preference/model")),
        format!("data.train={}", path("preference/pairs.jsonl")),
        format!("data.eval={}", path("preference/eval.jsonl")),
        format!("output={}", output.display()),
    ];
    for set in [
        "optimizer.weight_decay=0.0",
        "optimizer.max_grad_norm=0.0",
        "optimizer.learning_rate=1e-2",
        "schedule.kind=constant",
        "schedule.warmup_steps=0",
        "run.max_steps=10",
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

fn adapter(folder: &str) -> String {
    format!(
        "adapter={}",
        golden().join(folder).join("adapter").display()
    )
}

/// The formula of the paper.
const PAPER: &str = "objective.convention=paper";

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
        "dpo_nll_paper" => vec![
            "objective.kind=dpo",
            "objective.reference=base",
            "objective.cross_entropy=1.0",
            PAPER,
        ],
        "dpo_ipo_paper" => vec!["objective.kind=ipo", "objective.reference=base", PAPER],
        "cpo_paper" => vec!["objective.kind=cpo", PAPER],
        "orpo_paper" => vec!["objective.kind=orpo", PAPER],
        "simpo" => vec!["objective.kind=simpo"],
        "cpo" => vec!["objective.kind=cpo"],
        "orpo" => vec!["objective.kind=orpo"],
        "dpo_full" => vec!["objective.kind=dpo", "optimizer.learning_rate=1e-3"],
        "kto" => vec!["objective.kind=kto", "objective.reference=base"],
        "kto_weights" => vec![
            "objective.kind=kto",
            "objective.reference=base",
            "objective.beta=0.5",
            "objective.desirable_weight=1.5",
            "objective.undesirable_weight=0.7",
        ],
        "kto_full" => vec!["objective.kind=kto", "optimizer.learning_rate=1e-3"],
        "dft" => vec!["objective.kind=dft"],
        "reward" => vec!["objective.kind=reward"],
        "reward_centered" => vec![
            "objective.kind=reward",
            "objective.center_rewards_coefficient=0.3",
        ],
        "reward_full" => vec!["objective.kind=reward", "optimizer.learning_rate=1e-3"],
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
fn trajectories_of_pairs_are_those_of_trl() {
    assert_eq!(compare(&golden().join("preference"), &[]), 12);
}

#[test]
fn trajectories_of_labelled_answers_are_those_of_trl() {
    let folder = golden().join("labelled");
    let named = |key: &str, name: &str| format!("data.{key}={}", folder.join(name).display());
    let [answers, eval] = [named("train", "answers.jsonl"), named("eval", "eval.jsonl")];
    assert_eq!(compare(&folder, &[&answers, &eval]), 4);
}

#[test]
fn trajectories_of_reward_models_are_those_of_trl() {
    let folder = golden().join("reward");
    let model = format!("model={}", folder.join("model").display());
    let eval = format!("data.eval={}", folder.join("eval.jsonl").display());
    assert_eq!(compare(&folder, &[&model, &eval]), 3);
    // Shared beginnings change nothing.
    let alone = "packing.share_prefix=false";
    assert_eq!(compare(&folder, &[&model, &eval, alone]), 3);
}

/// Compares our runs with the cases of a folder; returns their number.
fn compare(golden: &Path, data: &[&str]) -> usize {
    let text = fs::read_to_string(golden.join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let cases: Vec<Case> = serde_json::from_value(cases["cases"].clone()).unwrap();
    let mut compared = 0;
    let unlabelled = tempfile::tempdir().unwrap();
    for case in cases {
        let Some(mut sets) = settings(&case.name) else {
            continue;
        };
        compared += 1;
        sets.extend(data);
        let sequences = unlabelled_data(&case.name, data, unlabelled.path());
        sets.extend(sequences.iter().map(String::as_str));
        let adapter = adapter(match golden.join("adapter").is_dir() {
            true => golden.file_name().unwrap().to_str().unwrap(),
            false => "preference",
        });
        let full = case.name.ends_with("_full");
        if !full {
            sets.push(&adapter);
        }
        let folder = tempfile::tempdir().unwrap();
        let rows = run(&config(&folder.path().join("run"), &sets));
        let steps = rows.steps.into_inner().unwrap();
        assert_eq!(steps.len(), 10);
        for (row, expected) in steps.iter().zip(&case.steps) {
            let place = format!("{} step {}", case.name, row.step);
            expected
                .measured
                .compare(&place, row.loss, &row.rewards, 3e-5);
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
            if case.name == "dft" {
                // Evaluations have the cross-entropy.
                assert!(row.eval_loss > expected.loss && row.eval_perplexity.is_some());
                continue;
            }
            expected.compare(&place, row.eval_loss, &row.rewards, 3e-5);
            assert_eq!(row.eval_perplexity, None);
        }
        let written = match full {
            true => "model/model.safetensors",
            false => "adapter/adapter_model.safetensors",
        };
        let got = weights(&folder.path().join("run").join(written));
        let file = format!("cases/{}.safetensors", case.name);
        let expected = weights(&golden.join(file));
        assert_eq!(got.len(), expected.len());
        for ((name, got), (other, expected)) in got.iter().zip(&expected) {
            assert_eq!(name, other);
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 5e-5, "{}, {name}", case.name);
            }
        }
    }
    compared
}

/// The answers of labelled rows as sequences, for an objective without verdicts.
fn unlabelled_data(case: &str, data: &[&str], folder: &Path) -> Vec<String> {
    if case != "dft" {
        return Vec::new();
    }
    let convert = |set: &&str| {
        let (key, path) = set.split_once('=').unwrap();
        let text = fs::read_to_string(path).unwrap();
        let rows = text.lines().map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let [prompt, answer] =
                ["prompt_ids", "completion_ids"].map(|key| row[key].as_array().unwrap().clone());
            let mut labels = vec![Value::from(-100); prompt.len()];
            labels.extend(answer.clone());
            let ids = [prompt, answer].concat();
            format!(
                "{}\n",
                serde_json::json!({"input_ids": ids, "labels": labels})
            )
        });
        let to = folder.join(format!("{key}.jsonl"));
        fs::write(&to, rows.collect::<String>()).unwrap();
        format!("{key}={}", to.display())
    };
    data.iter().map(convert).collect()
}

/// The reference is the model that the run starts from, so nothing is preferred at first.
#[test]
fn a_continued_adapter_is_its_own_reference() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter("preference");
    for (name, sets) in [
        ("continued", &["objective.kind=dpo", &adapter][..]),
        ("fresh", &["objective.kind=dpo", "lora.r=2"]),
    ] {
        let rows = run(&config(&folder.path().join(name), sets));
        let first = rows.steps.lock().unwrap()[0].clone();
        assert!((first.loss - 2f64.ln()).abs() < 1e-9, "{}", first.loss);
        let rewards = first.rewards;
        assert_eq!(
            (rewards.rewards_margin, rewards.rewards_accuracy),
            (Some(0.0), Some(0.0))
        );
    }
}

/// Packs of few pairs, batches of padded pairs, and a run that was stopped give the same losses as
/// one pack of all pairs, up to rounding, and a resumed run the same bits as a whole one.
#[test]
fn packing_and_resuming_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let labelled = golden().join("labelled");
    let named = |key: &str, name: &str| format!("data.{key}={}", labelled.join(name).display());
    let labelled = [named("train", "answers.jsonl"), named("eval", "eval.jsonl")];
    for kind in ["dpo", "ipo", "simpo", "cpo", "orpo", "kto"] {
        let kind_set = format!("objective.kind={kind}");
        let losses = |name: &str, sets: &[&str]| -> Vec<f64> {
            let mut all = vec![kind_set.as_str(), "lora.r=2"];
            if kind == "kto" {
                all.extend(labelled.iter().map(String::as_str));
            }
            all.extend(sets);
            let output = folder.path().join(kind).join(name);
            let rows = run(&config(&output, &all));
            let steps = rows.steps.into_inner().unwrap();
            steps.iter().map(|row| row.loss).collect()
        };
        let whole = losses("whole", &[]);
        let padded = losses(
            "padded",
            &["packing.mode=padded", "batch.sequences_per_step=7"],
        );
        let packs = losses(
            "packs",
            &[
                "packing.capacity=32",
                "batch.accumulation=7",
                "data.max_length=16",
            ],
        );
        let steps = losses(
            "steps",
            &[
                "packing.capacity=32",
                "batch.sequences_per_step=7",
                "data.max_length=16",
            ],
        );
        let unshared = losses("unshared", &["packing.share_prefix=false"]);
        for other in [padded, packs, steps, unshared] {
            for (a, b) in whole.iter().zip(&other) {
                assert!((a - b).abs() < 2e-5 * a.abs().max(1.0), "{kind}: {a} {b}");
            }
        }
    }
    let [train_on, eval] = &labelled;
    for (index, sets) in [
        &["objective.kind=dpo", "lora.r=2"][..],
        &["objective.kind=dpo"],
        &["objective.kind=kto", "lora.r=2", train_on, eval],
        &["objective.kind=kto", train_on, eval],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("resumed {index}");
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
        // The reference of a model without an adapter is kept in the checkpoint.
        let computes = |rows: &Rows| {
            let notices = rows.notices.lock().unwrap();
            notices
                .iter()
                .any(|text| text.contains("log-probabilities"))
        };
        let full = !sets.contains(&"lora.r=2");
        assert_eq!((computes(&whole), computes(&rows)), (full, false), "{name}");
        let kept = folder.path().join(&name).join("checkpoints/step-000010");
        assert_eq!(kept.join("reference.safetensors").is_file(), full, "{name}");
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
    let pairs = refused(&[]);
    assert!(pairs.contains("pairs of answers (`chosen`, `rejected`); set `objective.kind` to dpo"));
    let text = folder.path().join("tokens.jsonl");
    fs::write(&text, "{\"input_ids\": [1, 2, 3]}\n").unwrap();
    let train = format!("data.train={}", text.display());
    let eval = format!("data.eval={}", text.display());
    let error = refused(&["objective.kind=dpo", &train, &eval]);
    assert!(error.contains("tokens.jsonl has neither"), "{error}");
    let error = refused(&["objective.kind=dpo", &eval]);
    assert!(error.contains("tokens.jsonl has neither"), "{error}");
    let answers = golden().join("labelled/answers.jsonl");
    let answers = format!("data.train={}", answers.display());
    for kind in ["cross-entropy", "dpo"] {
        let error = refused(&[&format!("objective.kind={kind}"), &answers]);
        let verdict =
            "has answers with a verdict (`label`: good or bad); set `objective.kind` to kto";
        assert!(error.contains(verdict), "{error}");
    }
    let error = refused(&["objective.kind=kto"]);
    assert!(
        error.contains("needs answers that are good or bad"),
        "{error}"
    );
}

/// A head of random numbers is trained and said, but not evaluated.
#[test]
fn a_model_without_a_head_that_scores_is_not_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("run"), &["objective.kind=reward"]);
    let error = evaluate_config(&config, 1, 9, &Rows::default()).unwrap_err();
    assert!(
        error.to_string().contains("has no head that scores"),
        "{error}"
    );
    let rows = run(&config);
    let notices = rows.notices.into_inner().unwrap().join("\n");
    assert!(notices.contains("a new one is drawn"), "{notices}");
}
