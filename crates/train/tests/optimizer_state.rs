//! State of optimizers: losses of 8-bit moments beside those with f32, the same bits after resuming, the stored state and
//! the report about it.

mod common;

use common::{LORA, Run, Watch, check_resuming, check_threads, sized};
use safetensors::{Dtype, SafeTensors};
use std::fs;
use tightrope_model::{Backend, ModelConfig};
use tightrope_testkit::cuda;
use tightrope_train::{Optimizer, StatePlan, TrainError, config::OptimizerState};

const EIGHT: &str = "optimizer.state=8bit";

/// The matrices of the feed-forward layers, 129 × 32, are stored in 8 bits, with an incomplete last
/// block; everything else is too small.
fn fresh(sets: &[&str]) -> Run {
    let mut run = Run::new(&["schedule.kind=constant", "schedule.warmup_steps=0"]);
    run.set(sets);
    run.architecture = sized(32, 129);
    run
}

fn losses<D: Backend>(device: &D, state: &str) -> Vec<f64> {
    let run = fresh(&[state, "run.max_steps=25", "run.save_every=100"]);
    run.watched_on(device, &Watch::new(None)).unwrap();
    run.losses()
}

fn check_losses<D: Backend>(device: &D) {
    let (f32s, eights) = (losses(device, "optimizer.state=f32"), losses(device, EIGHT));
    assert_eq!(f32s.len(), 25);
    // The first update sees the moments before they are rounded.
    assert_eq!(f32s[..2], eights[..2]);
    assert_ne!(f32s[2..], eights[2..]);
    let gain = f32s[0] - f32s[24];
    assert!(gain > 1.0, "{f32s:?}");
    for (a, b) in f32s.iter().zip(&eights) {
        let close = (a - b).abs() <= 0.01 * gain;
        assert!(close, "{f32s:?}\n{eights:?}");
    }
}

#[test]
fn losses_are_those_of_f32_on_the_cpu() {
    check_losses(&Run::new(&[]).cpu());
}

#[test]
fn losses_are_those_of_f32_on_cuda() {
    check_losses(cuda());
}

/// Changed by `sets`, and long enough to be stopped twice.
fn short(sets: &[&str]) -> Run {
    fresh(&[&[EIGHT, "run.max_steps=5"], sets].concat())
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bits_on_the_cpu() {
    let cpu = Run::new(&[]).cpu();
    check_resuming(&cpu, || short(&[]));
    // Factors of an adapter that are large enough.
    check_resuming(&cpu, || short(&[LORA, &["lora.r=136"]].concat()));
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bits_on_cuda() {
    check_resuming(cuda(), || short(&[]));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    check_threads(|| fresh(&[EIGHT]));
}

#[test]
fn another_state_is_refused_on_resuming() {
    for (old, new) in [("f32", "8bit"), ("8bit", "f32")] {
        let mut run = fresh(&[&format!("optimizer.state={old}")]);
        run.go(Some(2)).unwrap();
        run.resume().set(&[&format!("optimizer.state={new}")]);
        let error = run.go(None).unwrap_err();
        assert!(matches!(error, TrainError::Changed { .. }), "{error}");
        let said = format!("optimizer.state: \"{old}\" -> \"{new}\"");
        assert!(error.to_string().contains(&said), "{error}");
        // Moments are not converted, even with `allow_change`.
        run.options.allow_change = true;
        let error = run.go(None).unwrap_err().to_string();
        let said = format!(
            "optimizer.safetensors: written with optimizer.state = \"{old}\", which cannot be read as \
             \"{new}\""
        );
        assert!(error.contains(&said), "{error}");
    }
}

fn check_what_is_kept<D: Backend>(device: &D) {
    let small = StatePlan {
        kind: "adamw",
        state: OptimizerState::F32,
        tensors: 15,
        // Embedding and head; q, k, v, o and two norms of two layers; the last norm.
        parameters: 2 * 37 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 2 * 32) + 32,
        bytes: 8 * 8672,
    };
    let large = 6 * 129 * 32;
    let both = |plan: StatePlan| (plan.parameters, plan.bytes);
    for (set, expected) in [
        (
            "optimizer.state=f32",
            vec![StatePlan {
                tensors: 21,
                parameters: small.parameters + large,
                bytes: small.bytes + 8 * large,
                ..small
            }],
        ),
        (
            EIGHT,
            vec![
                StatePlan {
                    kind: "adamw",
                    state: OptimizerState::EightBits,
                    tensors: 6,
                    parameters: large,
                    // Two codes for each element, two scales for each of 17 blocks.
                    bytes: 2 * large + 6 * 17 * 2 * 4,
                },
                small,
            ],
        ),
    ] {
        let run = fresh(&[set, "run.max_steps=1"]);
        let watch = Watch::new(None);
        let report = run.watched_on(device, &watch).unwrap();
        let plan = watch.plan.into_inner().unwrap().unwrap();
        assert_eq!(plan.optimizer, expected);
        let (parameters, bytes) = expected
            .into_iter()
            .map(both)
            .fold((0, 0), |sum, plan| (sum.0 + plan.0, sum.1 + plan.1));
        assert_eq!(plan.trained_parameters, parameters);

        // The size is that of the state in a checkpoint.
        let file = report.checkpoint.unwrap().join("optimizer.safetensors");
        let file = fs::read(file).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let kept: usize = tensors.iter().map(|(_, view)| view.data().len()).sum();
        assert_eq!(kept as u64, bytes);
        let gate = "model.layers.1.mlp.gate_proj.weight";
        let of_gate: Vec<_> = tensors
            .iter()
            .filter_map(|(name, view)| {
                let name = name.strip_prefix(gate)?.to_owned();
                Some((name, view.dtype(), view.shape().to_vec()))
            })
            .collect();
        let moments = |parts: &[(&str, Dtype, &[usize])]| -> Vec<_> {
            let part = |m: &str, (name, dtype, shape): &(&str, Dtype, &[usize])| {
                (format!(".{m}{name}"), *dtype, shape.to_vec())
            };
            let of = |m: &'static str| parts.iter().map(move |p| part(m, p));
            of("m").chain(of("v")).collect()
        };
        let mut expected = match set {
            EIGHT => moments(&[
                (".codes", Dtype::U8, &[129, 32]),
                (".absmax", Dtype::F32, &[17]),
            ]),
            _ => moments(&[("", Dtype::F32, &[129, 32])]),
        };
        let mut of_gate = of_gate;
        of_gate.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(of_gate, expected);
    }
}

#[test]
fn the_plan_says_what_a_checkpoint_holds_on_the_cpu() {
    check_what_is_kept(&Run::new(&[]).cpu());
}

#[test]
fn the_plan_says_what_a_checkpoint_holds_on_cuda() {
    check_what_is_kept(cuda());
}

#[test]
fn another_kind_is_refused_on_resuming() {
    let mut run = fresh(&[]);
    run.go(Some(2)).unwrap();
    run.resume().set(&["optimizer.kind=lion"]);
    run.options.allow_change = true;
    let error = run.go(None).unwrap_err().to_string();
    let said = "written with optimizer.kind = \"adamw\", which cannot be read as \"lion\"";
    assert!(error.contains(said), "{error}");
}

/// Elements of the layers' matrices, their rows and columns, and elements of everything else.
const MATRICES: u64 = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 129 * 32);
const ROWS_AND_COLUMNS: u64 = 2 * (2 * (32 + 32) + 2 * (16 + 32) + 3 * (129 + 32));
const TABLES: u64 = 2 * 37 * 32;
const NORMS: u64 = 5 * 32;

#[test]
fn each_kind_says_what_it_keeps() {
    let all = MATRICES + TABLES + NORMS;
    type Kept = (&'static str, &'static str, u64, u64);
    let expected: [(&[&str], &[Kept]); 6] = [
        (
            &["optimizer.state=bf16"],
            &[("adamw", "bf16", all, 4 * all)],
        ),
        (&["optimizer.kind=lion"], &[("lion", "f32", all, 4 * all)]),
        (
            &["optimizer.kind=lion", "optimizer.state=bf16"],
            &[("lion", "bf16", all, 2 * all)],
        ),
        (
            &["optimizer.kind=muon"],
            &[
                ("muon", "f32", MATRICES, 4 * MATRICES),
                ("adamw", "f32", TABLES + NORMS, 8 * (TABLES + NORMS)),
            ],
        ),
        (
            &["optimizer.kind=adafactor"],
            &[(
                "adafactor",
                "f32",
                all,
                4 * (ROWS_AND_COLUMNS + 2 * (37 + 32) + NORMS),
            )],
        ),
        (
            // Two numbers of each of the groups: matrices and tables, norms.
            &["optimizer.kind=schedule-free"],
            &[("schedule-free", "f32", all, 8 * all + 2 * 16)],
        ),
    ];
    for (sets, expected) in expected {
        let run = fresh(sets);
        let config = run.config();
        let mut model = run.model(&run.cpu(), &config, 8);
        let mut optimizer = Optimizer::new(&mut model, &config.optimizer, 1.0).unwrap();
        let plan = optimizer.plan().unwrap();
        let plan = plan
            .iter()
            .map(|plan| (plan.kind, plan.state.name(), plan.parameters, plan.bytes));
        assert_eq!(plan.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn rates_of_what_is_not_trained_are_refused() {
    let refused = |sets: &[&str], tied: bool| {
        let mut run = fresh(sets);
        let mut settings = common::settings(32, 129);
        settings["tie_word_embeddings"] = tied.into();
        run.architecture = ModelConfig::from_json(&settings).unwrap();
        let config = run.config();
        let mut model = run.model(&run.cpu(), &config, 8);
        match Optimizer::new(&mut model, &config.optimizer, 1.0) {
            Ok(_) => None,
            Err(TrainError::RateOfNothing { key, .. }) => Some(key),
            Err(error) => panic!("{error}"),
        }
    };
    let head = "optimizer.head_learning_rate";
    let embedding = "optimizer.embedding_learning_rate";
    let left = "optimizer.adamw_learning_rate";
    let set = |key: &str| format!("{key}=1e-3");
    let adapter = "lora.r=4";
    assert_eq!(refused(&[&set(head)], false), None);
    assert_eq!(refused(&[&set(head)], true), Some(head));
    assert_eq!(refused(&[&set(embedding)], true), None);
    assert_eq!(refused(&[&set(embedding), adapter], true), Some(embedding));
    let muon = ["optimizer.kind=muon", &set(left)];
    assert_eq!(refused(&muon, true), None);
    assert_eq!(refused(&[&muon[..], &[adapter]].concat(), true), Some(left));
}

#[test]
fn an_optimizer_of_other_parameters_is_refused() {
    // As many parameters of the same sizes, and other names.
    let run = |module: &str| Run::new(&[&format!("lora.target_modules=['{module}']")]);
    let [(config, mut first), (_, mut second)] = ["q_proj", "o_proj"].map(|module| {
        let config = run(module).config();
        let model = run(module).model(&run(module).cpu(), &config, 8);
        (config, model)
    });
    let mut optimizer = Optimizer::new(&mut first, &config.optimizer, 1.0).unwrap();
    optimizer.update(&mut first, 1, 0.1, 1.0).unwrap();
    let error = optimizer.update(&mut second, 1, 0.1, 1.0).unwrap_err();
    assert!(
        matches!(&error, TrainError::OtherParameters { name } if name.contains("o_proj") || name.contains("q_proj"))
    );
}
