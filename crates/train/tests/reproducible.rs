//! Runs have the same bits when repeated, with any number of threads, and however often they were
//! stopped.

mod common;

use common::{LORA, Run, Watch, check_resuming, check_threads, dataset};
use std::{fs, path::PathBuf};
use tightrope_formats::{Encoding, Tensors};
use tightrope_testkit::cuda;
use tightrope_train::Outcome;

const WITH_EVAL: &[&str] = &["run.eval_every=3", "run.keep=9", "batch.accumulation=2"];

fn runs() -> [Vec<&'static str>; 2] {
    [WITH_EVAL.to_vec(), [WITH_EVAL, LORA].concat()]
}

/// Every other optimizer, with all weights and with an adapter, every other schedule, and adapters
/// that start from the weights.
fn other_runs() -> Vec<Vec<&'static str>> {
    let kinds: [&[&str]; 6] = [
        &["optimizer.kind=lion", "schedule.kind=wsd"],
        &[
            "optimizer.kind=lion",
            "optimizer.state=bf16",
            "schedule.kind=inverse-sqrt",
        ],
        &["optimizer.state=bf16", "schedule.kind=polynomial"],
        &["optimizer.kind=muon", "schedule.kind=cosine-restarts"],
        &["optimizer.kind=adafactor", "optimizer.beta1=0.9"],
        &["optimizer.kind=schedule-free"],
    ];
    let with = |kind: &&[&'static str]| runs().map(|run| [run, kind.to_vec()].concat());
    let starts = ["lora.init=pissa", "lora.init=olora"];
    let starts = starts.map(|start| [WITH_EVAL, LORA, &[start]].concat());
    kinds.iter().flat_map(with).chain(starts).collect()
}

fn fresh(sets: &[&str]) -> Run {
    let mut run = Run::new(&["data.eval=given", "packing.capacity=24"]);
    run.set(sets);
    run.eval = Some(dataset(5, 9));
    run
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bits() {
    for sets in runs() {
        let whole = fresh(&sets);
        let expected = whole.result(&whole.go(None).unwrap());
        // After steps 0, 3, 6 and 7.
        assert_eq!(expected.2.len(), 7 + 4, "{:?}", expected.2);
        for stops in [vec![1], vec![3], vec![6], vec![1, 2, 5]] {
            let mut run = fresh(&sets);
            for stop in stops {
                let report = run.go(Some(stop)).unwrap();
                let checkpoint = run.output.join(format!("checkpoints/step-{stop:06}"));
                assert_eq!(
                    report.outcome,
                    Outcome::Stopped {
                        step: stop,
                        checkpoint
                    }
                );
                run.resume();
            }
            let report = run.go(None).unwrap();
            assert_eq!(report.outcome, Outcome::Finished);
            assert!(
                run.result(&report) == expected,
                "stopped and resumed, the bits differ"
            );
        }
    }
}

#[test]
fn every_optimizer_and_start_stopped_anywhere_ends_with_the_same_bits() {
    for sets in other_runs() {
        check_resuming(&Run::new(&[]).cpu(), || fresh(&sets));
    }
}

#[test]
fn every_optimizer_and_start_stopped_anywhere_ends_with_the_same_bits_on_cuda() {
    for sets in other_runs() {
        let short = [&sets[..], &["run.max_steps=4", "run.eval_every=2"]].concat();
        check_resuming(cuda(), || fresh(&short));
    }
}

#[test]
fn every_optimizer_and_start_has_the_same_bits_for_any_number_of_threads() {
    for sets in other_runs() {
        check_threads(|| fresh(&sets));
    }
}

#[test]
fn every_optimizer_and_start_learns() {
    let constant = ["schedule.kind=constant", "run.max_steps=40"];
    for sets in other_runs() {
        let sets = sets.into_iter().filter(|set| !set.starts_with("schedule."));
        let mut run = fresh(&sets.collect::<Vec<_>>());
        run.set(&constant);
        // Steps of Lion are as large as its learning rate.
        if run.sets.iter().any(|set| set == "optimizer.kind=lion") {
            run.set(&["optimizer.learning_rate=0.002"]);
        }
        let report = run.go(None).unwrap();
        let before = report.evaluation_before.unwrap().loss;
        let after = report.evaluation.unwrap().loss;
        assert!(after < 0.97 * before, "{:?}: {before} {after}", run.sets);
    }
}

#[test]
fn schedule_free_leaves_the_average_and_goes_on_from_elsewhere() {
    let run = fresh(&["optimizer.kind=schedule-free"]);
    let report = run.go(None).unwrap();
    let read = |path: PathBuf, name: &str| {
        let tensors = Tensors::open(&path).unwrap();
        Encoding::F32.to_f32(&tensors.read(name).unwrap()).unwrap()
    };
    let name = "model.layers.0.mlp.up_proj.weight";
    let checkpoint = report.checkpoint.unwrap();
    let state = |part: &str| {
        let file = checkpoint.join("optimizer.safetensors");
        read(file, &format!("{name}.{part}"))
    };
    let (x, y, z) = (read(report.weights, name), state("y"), state("z"));
    assert!(x != y && y != z);
    for ((x, y), z) in x.iter().zip(y).zip(z) {
        let between = 0.9 * x + 0.1 * z;
        assert!((between - y).abs() < 1e-6, "{x} {y} {z}");
    }
}

#[test]
fn a_damaged_checkpoint_is_skipped_and_the_bits_stay_the_same() {
    for sets in runs() {
        let whole = fresh(&sets);
        let expected = whole.result(&whole.go(None).unwrap());
        let mut run = fresh(&sets);
        run.go(Some(5)).unwrap();
        let newest = run
            .output
            .join("checkpoints/step-000005/optimizer.safetensors");
        let mut bytes = fs::read(&newest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&newest, bytes).unwrap();
        let watch = Watch::new(None);
        let report = run.resume().watched(&watch).unwrap();
        let notices = watch.notices.into_inner().unwrap().join("\n");
        assert!(notices.contains("step-000005 is damaged"), "{notices}");
        assert!(notices.contains("resuming after step 4"), "{notices}");
        assert!(run.result(&report) == expected);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for sets in runs() {
        let results = [1, 2, 3].map(|threads| {
            let mut run = fresh(&sets);
            run.options.threads = threads;
            run.result(&run.go(None).unwrap())
        });
        assert!(results[0] == results[1] && results[0] == results[2]);
    }
}

/// At a learning rate this high the evaluation loss soon rises.
const SHAKY: &[&str] = &[
    "run.eval_every=1",
    "run.patience=3",
    "optimizer.learning_rate=0.3",
    "schedule.kind=constant",
    "run.max_steps=40",
    "run.keep=1",
    "run.save_every=1",
];

#[test]
fn the_best_weights_are_left_and_the_bits_do_not_depend_on_stops() {
    for sets in runs() {
        let shaky = || {
            let mut run = fresh(&sets);
            run.set(SHAKY);
            run
        };
        let whole = shaky();
        let report = whole.go(None).unwrap();
        assert_eq!(report.outcome, Outcome::StoppedEarly);
        let (_, best) = report.best.unwrap();
        assert_eq!((report.weights_step, report.steps), (best, best + 3));
        let expected = whole.result(&report);
        let file = report.weights.file_name().unwrap();
        let saved = report.best_checkpoint.unwrap().join(file);
        for entry in fs::read_dir(&report.weights).unwrap() {
            let path = entry.unwrap().path();
            let saved = saved.join(path.file_name().unwrap());
            assert_eq!(fs::read(&path).unwrap(), fs::read(saved).unwrap());
        }
        for stops in [vec![1], vec![best + 1], vec![best, best + 2]] {
            let mut run = shaky();
            for stop in stops {
                run.go(Some(stop)).unwrap();
                run.resume();
            }
            let report = run.go(None).unwrap();
            assert_eq!(report.weights_step, best);
            assert!(
                run.result(&report) == expected,
                "stopped and resumed, the bits differ"
            );
        }
        // The choice is free on resuming.
        let mut last = whole;
        last.set(&["run.result=last"]);
        let report = last.resume().go(None).unwrap();
        assert_eq!(report.weights_step, best + 3);
        assert!(last.result(&report).0 != expected.0);
    }
}

#[test]
fn recomputation_changes_no_bit_whatever_layers_have_adapters() {
    for modules in [
        "['layers.1.mlp.up_proj','layers.0.self_attn.q_proj']",
        "['layers.1.self_attn.v_proj']",
    ] {
        let modules = format!("lora.target_modules={modules}");
        let result = |recompute: &str| {
            let run = fresh(&[LORA, &[&modules, recompute]].concat());
            let result = run.result(&run.go(None).unwrap());
            let rows = run.rows();
            let mut norms = rows.iter().filter_map(|row| row["grad_norm"].as_f64());
            assert!(norms.all(|norm| norm > 0.0), "{modules}");
            result
        };
        assert!(
            result("run.recompute=false") == result("run.recompute=true"),
            "{modules}"
        );
    }
}

#[test]
fn another_seed_gives_another_result() {
    let result = |seed: &str| {
        let mut run = fresh(LORA);
        run.set(&[seed]);
        run.result(&run.go(None).unwrap()).0
    };
    assert!(result("seed=1") != result("seed=2"));
}

#[test]
fn more_steps_can_be_added_and_a_cosine_says_what_that_means() {
    for (kind, same) in [
        ("schedule.kind=constant", true),
        ("schedule.kind=cosine", false),
    ] {
        let sets = [kind, "schedule.warmup_steps=2"];
        let whole = fresh(&sets);
        let expected = whole.result(&whole.go(None).unwrap());
        let mut run = fresh(&sets);
        run.set(&["run.max_steps=5"]);
        run.go(None).unwrap();
        run.set(&["run.max_steps=7"]);
        let watch = Watch::new(None);
        let report = run.resume().watched(&watch).unwrap();
        assert_eq!(report.steps, 7);
        assert_eq!(run.result(&report).0 == expected.0, same, "{kind}");
        let notices = watch.notices.into_inner().unwrap().join("\n");
        assert_eq!(notices.contains("7 steps instead of 5"), !same, "{notices}");
    }
}

#[test]
fn checkpoints_are_kept_as_told() {
    let mut run = fresh(&["run.keep=2", "run.eval_every=2"]);
    run.set(&["run.max_steps=9", "run.save_every=1"]);
    let report = run.go(None).unwrap();
    let (_, best) = report.best.unwrap();
    let mut expected = vec![
        format!("step-{best:06}"),
        "step-000008".into(),
        "step-000009".into(),
    ];
    expected.dedup();
    expected.sort();
    expected.dedup();
    assert_eq!(run.checkpoints(), expected);
    assert!(
        report
            .best_checkpoint
            .unwrap()
            .ends_with(format!("step-{best:06}"))
    );
}
