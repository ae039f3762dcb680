//! Files in an output folder: only files that a run has written are ever replaced.

mod common;

use common::{LORA, Run, Watch, dataset};
use proptest::prelude::*;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_train::{Outcome, TrainError};

fn lora(sets: &[&str]) -> Run {
    let mut run = Run::new(LORA);
    run.set(sets);
    run
}

/// Every file below `folder` that is not the lock.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() && !path.is_symlink() {
            true => found.extend(files(&path)),
            false if path.ends_with(".lock") => (),
            false => found.push(path),
        }
    }
    found
}

fn notices(watch: Watch) -> String {
    watch.notices.into_inner().unwrap().join("\n")
}

#[test]
fn what_no_run_has_written_is_refused_before_the_first_step() {
    type Put = fn(&Path);
    let ways: [(&str, Put); 8] = [
        ("metrics.jsonl", |o| {
            fs::write(o.join("metrics.jsonl"), "mine").unwrap()
        }),
        ("metrics.jsonl", |o| {
            fs::create_dir(o.join("metrics.jsonl")).unwrap()
        }),
        ("adapter", |o| {
            fs::create_dir(o.join("adapter")).unwrap();
            fs::write(o.join("adapter/notes"), "mine").unwrap();
        }),
        ("adapter", |o| fs::write(o.join("adapter"), "mine").unwrap()),
        ("run.json", |o| fs::write(o.join("run.json"), "{}").unwrap()),
        ("checkpoints", |o| {
            fs::create_dir(o.join("checkpoints")).unwrap();
            fs::write(o.join("checkpoints/mine"), "").unwrap();
        }),
        ("step-000002", |o| {
            fs::create_dir_all(o.join("checkpoints/step-000002")).unwrap();
            fs::write(o.join("checkpoints/step-000002/mine"), "").unwrap();
        }),
        #[cfg(unix)]
        ("adapter", |o| {
            fs::create_dir(o.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", o.join("adapter")).unwrap();
        }),
    ];
    for (name, put) in ways {
        let mut run = lora(&[]);
        fs::create_dir(&run.output).unwrap();
        put(&run.output);
        let before = files(&run.output);
        for overwrite in [false, true] {
            run.options.overwrite = overwrite;
            let error = run.go(None).unwrap_err();
            assert!(matches!(error, TrainError::NotOurs { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(files(&run.output), before);
        }
    }
    let run = lora(&[]);
    fs::write(&run.output, "a file").unwrap();
    let error = run.go(None).unwrap_err().to_string();
    assert!(error.contains("not a folder"), "{error}");
}

#[test]
#[cfg(unix)]
fn what_stands_in_the_way_of_the_output_is_named() {
    let mut run = lora(&[]);
    let place = run.output.parent().unwrap().to_owned();
    fs::write(place.join("file"), "").unwrap();
    for link in ["link", "loop"] {
        let to = if link == "link" { "nowhere" } else { link };
        std::os::unix::fs::symlink(to, place.join(link)).unwrap();
    }
    for (output, name, what) in [
        ("file/a/b", "file", "not a folder"),
        ("link", "link", "a link to something"),
        ("link/a", "link", "a link to something"),
        ("loop", "loop", "a link to something"),
    ] {
        run.output = place.join(output);
        let error = run.go(None).unwrap_err().to_string();
        let expected = format!("{}: {what}", place.join(name).display());
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(!place.join("nowhere").exists());
}

#[test]
fn a_record_that_points_elsewhere_is_not_believed() {
    let mut run = lora(&["run.max_steps=1"]);
    run.go(None).unwrap();
    let record = run.output.join("run.json");
    let text = fs::read_to_string(&record).unwrap();
    for outside in ["../victim", "/victim", "adapter/../../victim"] {
        fs::write(&record, text.replace("metrics.jsonl", outside)).unwrap();
        run.options.overwrite = true;
        let error = run.go(None).unwrap_err();
        assert!(matches!(error, TrainError::NotOurs { .. }), "{error}");
    }
}

#[test]
fn overwriting_removes_what_the_earlier_run_wrote_and_nothing_else() {
    let run = lora(&["run.max_steps=2"]);
    run.go(None).unwrap();
    fs::write(run.output.join("adapter/README.md"), "mine").unwrap();
    fs::write(run.output.join("notes"), "mine").unwrap();
    let config = run.output.join("adapter/adapter_config.json");
    let edited = fs::read_to_string(&config).unwrap().replace("LORA", "MINE");
    fs::write(&config, &edited).unwrap();
    // The next run is of another kind, and is stopped before its first step.
    let mut next = Run::new(&[]);
    next.output.clone_from(&run.output);
    next.options.overwrite = true;
    let watch = Watch::new(None);
    watch.stop.request();
    let report = next.watched(&watch).unwrap();
    assert!(matches!(report.outcome, Outcome::Stopped { step: 0, .. }));
    assert_eq!(next.checkpoints(), ["step-000000"]);
    assert!(next.rows().is_empty());
    let left = fs::read_dir(run.output.join("adapter")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["README.md", "adapter_config.json.kept"]);
    let kept = fs::read_to_string(run.output.join("adapter/adapter_config.json.kept"));
    assert_eq!(kept.unwrap(), edited);
    assert!(run.output.join("notes").exists());
    assert!(notices(watch).contains("adapter_config.json.kept"));
}

#[test]
fn the_earlier_run_goes_only_when_the_new_one_begins() {
    let mut run = lora(&["run.max_steps=2"]);
    run.go(None).unwrap();
    run.options.overwrite = true;
    run.eval = Some(dataset(0, 1));
    run.set(&["data.eval=given"]);
    run.go(None).unwrap_err();
    assert_eq!(run.checkpoints(), ["step-000002"]);
    assert!(run.output.join("adapter/adapter_config.json").exists());
}

#[test]
fn a_file_of_somebody_in_a_checkpoint_keeps_it() {
    let mut run = lora(&["run.keep=1", "run.save_every=1", "run.max_steps=2"]);
    run.go(None).unwrap();
    let note = run.output.join("checkpoints/step-000002/note");
    fs::write(&note, "mine").unwrap();
    run.options.overwrite = true;
    let error = run.go(None).unwrap_err().to_string();
    assert!(error.contains("step-000002/note"), "{error}");
    run.options.overwrite = false;
    run.set(&["run.max_steps=4"]);
    let watch = Watch::new(None);
    run.resume().watched(&watch).unwrap();
    assert_eq!(run.checkpoints(), ["step-000002", "step-000004"]);
    assert!(note.exists());
    let said = notices(watch);
    assert_eq!(
        said.matches("step-000002 stays: note in it").count(),
        1,
        "{said}"
    );
}

#[test]
fn the_result_can_be_edited_and_the_run_still_goes_on() {
    let mut run = lora(&["run.keep=1", "run.max_steps=2"]);
    let report = run.go(None).unwrap();
    let checkpoint = report.checkpoint.unwrap().join("adapter");
    let config = report.weights.join("adapter_config.json");
    fs::write(&config, "mine").unwrap();
    #[cfg(unix)]
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        use std::os::unix::fs::MetadataExt;
        let [copy, own] = [&report.weights, &checkpoint].map(|folder| {
            let data = fs::metadata(folder.join(file)).unwrap();
            (data.dev(), data.ino())
        });
        assert_ne!(copy, own, "{file}");
    }
    run.set(&["run.max_steps=4"]);
    let report = run.resume().go(None).unwrap();
    assert_eq!((report.steps, report.weights_step), (4, 4));
    let kept = config.with_file_name("adapter_config.json.kept");
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine");
    assert_ne!(fs::read_to_string(config).unwrap(), "mine");
}

#[test]
fn damaged_checkpoints_do_not_count() {
    let mut run = lora(&["run.keep=3", "run.max_steps=6"]);
    run.go(None).unwrap();
    let damage = |step: u64| {
        let state = run
            .output
            .join(format!("checkpoints/step-{step:06}/state.json"));
        fs::write(state, "{}").unwrap();
    };
    damage(2);
    damage(6);
    run.set(&["run.keep=2", "run.max_steps=5", "run.save_every=100"]);
    let report = run.resume().go(None).unwrap();
    let expected = [
        "damaged-step-000006",
        "step-000002",
        "step-000004",
        "step-000005",
    ];
    assert_eq!(run.checkpoints(), expected);
    assert!(report.checkpoint.unwrap().ends_with("step-000005"));
    // There are fewer whole checkpoints than are to be kept, so all of them stay.
    run.set(&["run.keep=1", "run.max_steps=7"]);
    run.go(None).unwrap();
    let expected = ["damaged-step-000006", "step-000002", "step-000007"];
    assert_eq!(run.checkpoints(), expected);
}

#[test]
fn a_warm_up_that_the_run_does_not_finish_is_said() {
    for (warmup, said) in [(3, true), (2, false)] {
        let mut run = lora(&["run.max_steps=2"]);
        run.set(&[&format!("schedule.warmup_steps={warmup}")]);
        let watch = Watch::new(None);
        run.watched(&watch).unwrap();
        assert_eq!(
            notices(watch).contains("before its warm-up of 3 steps"),
            said
        );
    }
}

#[test]
fn a_finished_run_says_that_nothing_is_left_and_touches_nothing() {
    let mut run = lora(&["run.max_steps=3"]);
    let report = run.go(None).unwrap();
    let before: Vec<_> = files(&run.output)
        .into_iter()
        .map(|path| (fs::metadata(&path).unwrap().modified().unwrap(), path))
        .collect();
    let watch = Watch::new(None);
    let again = run.resume().watched(&watch).unwrap();
    assert_eq!((again.steps, again.first_step), (3, 3));
    assert_eq!(again.first_loss, report.first_loss);
    assert_eq!(again.last_loss, report.last_loss);
    for (time, path) in before {
        assert_eq!(
            fs::metadata(&path).unwrap().modified().unwrap(),
            time,
            "{}",
            path.display()
        );
    }
    let said = notices(watch);
    assert!(
        said.contains("nothing to do") && said.contains("run.max_steps"),
        "{said}"
    );
}

#[test]
fn the_first_loss_is_that_of_the_run() {
    let whole = lora(&[]).go(None).unwrap();
    let mut run = lora(&[]);
    run.go(Some(3)).unwrap();
    let report = run.resume().go(None).unwrap();
    assert_eq!(report.first_loss, whole.first_loss);
    assert_eq!(report.last_loss, whole.last_loss);
    assert_eq!((report.first_step, report.steps), (3, 7));
}

/// Actions of a user between two runs, and the runs.
#[derive(Clone, Debug)]
enum Act {
    Train {
        full: bool,
        overwrite: bool,
        resume: bool,
        steps: u64,
        stop: Option<u64>,
    },
    /// Writes a user's file somewhere, over existing files.
    Put(usize),
}

/// Places where users put their files.
const PLACES: [&str; 8] = [
    "notes",
    "adapter/README.md",
    "adapter/adapter_config.json",
    "model/config.json",
    "checkpoints/notes",
    "checkpoints/step-000002/notes",
    "checkpoints/step-000003",
    "merged/x",
];

fn act() -> impl Strategy<Value = Act> {
    let train = (any::<[bool; 3]>(), 1u64..4, proptest::option::of(1u64..3));
    let train = train.prop_map(|([full, overwrite, resume], steps, stop)| Act::Train {
        full,
        overwrite: overwrite && !resume,
        resume,
        steps,
        stop,
    });
    prop_oneof![3 => train, 2 => (0..PLACES.len()).prop_map(Act::Put)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For all actions in any order: every file of the user still exists, perhaps under another
    /// name, and a run that says that it is saved can be resumed.
    #[test]
    fn nothing_of_a_person_is_ever_lost(acts in proptest::collection::vec(act(), 1..9)) {
        let home = lora(&["run.keep=1", "run.save_every=1"]);
        let mut own: Vec<String> = Vec::new();
        for act in acts {
            match act {
                Act::Put(place) => {
                    let path = home.output.join(PLACES[place]);
                    let free = !path.exists() || fs::read_to_string(&path)
                        .is_ok_and(|text| !own.contains(&text));
                    if free && fs::create_dir_all(path.parent().unwrap()).is_ok() {
                        let text = format!("mine {}", own.len());
                        if fs::write(&path, &text).is_ok() {
                            own.push(text);
                        }
                    }
                }
                Act::Train { full, overwrite, resume, steps, stop } => {
                    let mut run = if full { Run::new(&[]) } else { lora(&[]) };
                    run.output.clone_from(&home.output);
                    let max_steps = format!("run.max_steps={steps}");
                    run.set(&["run.keep=1", "run.save_every=1", "schedule.kind=constant", &max_steps]);
                    run.options.overwrite = overwrite;
                    run.options.resume = resume;
                    if let Ok(report) = run.go(stop) {
                        let checkpoint = report.checkpoint.unwrap();
                        let state = fs::read(checkpoint.join("state.json")).unwrap();
                        let state: Value = serde_json::from_slice(&state).unwrap();
                        prop_assert_eq!(state["step"].as_u64(), Some(report.steps));
                        prop_assert!(report.weights.is_dir());
                    }
                }
            }
            let texts: Vec<_> = files(&home.output).iter().map(fs::read).map(Result::unwrap).collect();
            for text in &own {
                prop_assert!(texts.iter().any(|found| found == text.as_bytes()), "{} is lost", text);
            }
        }
    }
}
