//! The demonstration, cut short.

use tightrope_run::{RunError, demo};
use tightrope_train::{Outcome, RunOptions, StopFlag, TrainError};

#[test]
fn a_short_demonstration_runs_twice_with_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let settings = demo::Settings {
        steps: 3,
        records: 300,
        questions: 20,
    };
    let run = |stop: &StopFlag, resume| {
        let options = RunOptions {
            resume,
            ..RunOptions::default()
        };
        demo::run(folder.path(), &settings, &options, stop, &()).unwrap()
    };
    let go = StopFlag::default();
    let first = run(&go, false);
    let asked: usize = first.scores.iter().map(|score| score.asked).sum();
    assert!((10..=20).contains(&asked), "{asked} of 20 are short enough");
    assert_eq!(first.scores.len(), first.examples.len());
    assert!(first.padded_seconds > first.report.elapsed_s);
    let second = run(&go, false);
    assert_eq!(
        (&first.scores, &first.examples),
        (&second.scores, &second.examples)
    );
    assert_eq!(first.report.last_loss, second.report.last_loss);

    let stop = StopFlag::default();
    stop.request();
    let stopped = run(&stop, false);
    assert!(matches!(
        stopped.report.outcome,
        Outcome::Stopped { step: 0, .. }
    ));
    assert!(stopped.scores.is_empty());
    let resumed = run(&go, true);
    assert_eq!(resumed.examples, first.examples);
}

#[test]
fn another_run_in_the_folder_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let settings = demo::Settings {
        steps: 1,
        records: 300,
        questions: 1,
    };
    let run = |options: &RunOptions| {
        demo::run(folder.path(), &settings, options, &StopFlag::default(), &())
    };
    let options = RunOptions::default();
    run(&options).unwrap();
    run(&options).expect("an earlier demonstration is replaced");
    // As for the run of a configuration.
    let record = folder.path().join("run.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let (mark, none) = ("\"demonstration\": true", "\"demonstration\": false");
    assert!(text.contains(mark), "{text}");
    std::fs::write(&record, text.replace(mark, none)).unwrap();
    let error = run(&options).unwrap_err();
    assert!(
        matches!(error, RunError::Train(TrainError::OutputNotEmpty { .. })),
        "{error}"
    );
    let overwrite = RunOptions {
        overwrite: true,
        ..options
    };
    run(&overwrite).expect("what the caller wants deleted is deleted");
}
