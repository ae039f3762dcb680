//! Runs that must not start, or must stop.

mod common;

use common::{LORA, Run, Watch, dataset, sized};
use tightrope_data::Sequences;
use tightrope_device::Cpu;
use tightrope_model::TrainableModel;
use tightrope_packing::Sequence;
use tightrope_train::{
    Outcome, Output, OutputLock, Prepared, StopFlag, TrainError, Trainer, evaluate, load_options,
    training,
};

#[test]
fn an_output_folder_in_use_is_refused() {
    let run = Run::new(&[]);
    let lock = OutputLock::take(&run.output).unwrap();
    let error = run.go(None).unwrap_err();
    assert!(matches!(error, TrainError::OutputInUse { .. }), "{error}");
    drop(lock);
    run.go(None).unwrap();
}

#[test]
fn an_earlier_run_is_neither_lost_nor_mixed_up() {
    let mut run = Run::new(&["run.max_steps=2"]);
    run.go(None).unwrap();
    let error = run.go(None).unwrap_err().to_string();
    assert!(
        error.contains("--resume") && error.contains("--overwrite"),
        "{error}"
    );
    run.options.overwrite = true;
    run.set(&["run.max_steps=1"]);
    let report = run.go(None).unwrap();
    assert_eq!((report.steps, run.rows().len()), (1, 1));
    assert_eq!(run.checkpoints(), ["step-000001"]);
}

#[test]
fn nothing_to_resume_is_said() {
    let mut run = Run::new(&[]);
    let error = run.resume().go(None).unwrap_err().to_string();
    assert!(error.contains("without --resume"), "{error}");
}

#[test]
fn changes_of_configuration_or_data_are_shown_and_refused() {
    let mut run = Run::new(&["schedule.kind=constant"]);
    run.set(LORA);
    run.go(Some(2)).unwrap();
    run.resume().set(&["lora.dropout=0.5", "run.save_every=3"]);
    run.train = dataset(31, 1);
    let error = run.go(None).unwrap_err();
    let TrainError::Changed { changes } = &error else {
        panic!("{error}");
    };
    // The dropout, the data, and so the packs.
    assert_eq!(changes.len(), 3, "{error}");
    let text = error.to_string();
    assert!(text.contains("lora.dropout: 0.2 -> 0.5"), "{text}");
    assert!(text.contains("training data: {\"sequences\":30,"), "{text}");
    run.options.allow_change = true;
    let watch = Watch::new(None);
    run.watched(&watch).unwrap();
    let notices = watch.notices.into_inner().unwrap().join("\n");
    assert!(
        notices.contains("changed since the checkpoint: lora.dropout: 0.2 -> 0.5"),
        "{notices}"
    );
}

#[test]
fn a_loss_that_is_not_a_number_stops_before_the_update_and_names_the_sequence() {
    let mut run = Run::new(&[
        "run.save_every=1",
        "run.max_steps=99",
        "packing.max_sequences=1",
        "run.keep=99",
    ]);
    run.set(LORA);
    let sequence = |tokens: Vec<u32>| {
        let labels: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
        Sequence::from_labels(tokens, &labels).unwrap()
    };
    // Only sequence 4 has token 36, whose embedding is broken.
    let all = run.train.sequences.iter().enumerate();
    let all = all.map(|(index, trained)| match index {
        4 => sequence(vec![1, 36, 2]),
        _ => {
            let tokens = trained.unwrap();
            let tokens = tokens.tokens().iter().map(|&token| token.min(35));
            sequence(tokens.collect())
        }
    });
    run.train.sequences = all.collect();
    let config = run.config();
    let output = Output::open(&config, &run.options, &()).unwrap();
    let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
    // The embedding is frozen: what is trained stays finite.
    let whole = Run::new(&[]);
    let mut base = whole.model(&run.cpu(), &whole.config(), 1);
    break_embedding(&mut base, 36);
    let folder = tempfile::tempdir().unwrap();
    base.save_merged(folder.path()).unwrap();
    let options = load_options(&config, prepared.capacity());
    let (device, training) = (run.cpu(), training(&config));
    let model = TrainableModel::load(&device, folder.path(), &training, &options).unwrap();
    let trainer = Trainer::new(&config, &run.options, output, prepared, None, model, &());
    let error = trainer.unwrap().run(&StopFlag::default(), &()).unwrap_err();
    let TrainError::NotFinite {
        step,
        what,
        sequences,
        checkpoint,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (*what, sequences.as_slice()),
        ("the loss", ["sequence 4".to_owned()].as_slice())
    );
    // The step was not done: rows and checkpoints end before it.
    assert_eq!(run.rows().len() as u64, step - 1);
    let expected =
        (*step > 1).then(|| run.output.join(format!("checkpoints/step-{:06}", step - 1)));
    assert_eq!(checkpoint, &expected);
}

fn break_embedding(model: &mut TrainableModel<Cpu>, token: usize) {
    for parameter in model.parameters() {
        if parameter.name.contains("embed_tokens") {
            let mut values = parameter.weight.to_vec::<f32>().unwrap();
            let width = parameter.weight.shape()[1];
            values[token * width] = f32::NAN;
            parameter.weight.write(&values).unwrap();
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_never_saved() {
    for sets in [&[][..], LORA] {
        // From the start.
        let mut run = Run::new(&["optimizer.learning_rate=3e38", "schedule.warmup_steps=0"]);
        run.set(sets);
        run.set(&["run.max_steps=1", "lora.dropout=0"][..1 + usize::from(!sets.is_empty())]);
        let error = run.go(None).unwrap_err();
        let saved = run.output.join("checkpoints").read_dir().unwrap().count();
        assert_eq!(saved, 0, "{error}");

        // Later: the finite ones stay, and are named.
        let mut run = Run::new(&["run.keep=1", "run.max_steps=2", "schedule.kind=constant"]);
        run.set(sets);
        run.go(None).unwrap();
        run.set(&[
            "run.max_steps=3",
            "optimizer.learning_rate=3e38",
            "run.save_every=1",
        ]);
        run.options.allow_change = true;
        let error = run.resume().go(None).unwrap_err();
        let last = run.output.join("checkpoints/step-000002");
        match &error {
            TrainError::WeightsNotFinite {
                step: 3,
                what: "weights",
                checkpoint,
            } => {
                assert_eq!(checkpoint.as_ref(), Some(&last));
            }
            _ => panic!("{error}"),
        }
        let text = error.to_string();
        assert!(
            text.contains("learning_rate") && text.contains("step-000002"),
            "{text}"
        );
        assert_eq!(run.checkpoints(), ["step-000002"]);
    }
}

#[test]
fn an_evaluation_that_is_not_finite_names_the_tensor() {
    let run = Run::new(&[]);
    let mut model = run.model(&run.cpu(), &run.config(), 8);
    let sequence = Sequence::from_labels(vec![1, 36, 2], &[1, 36, 2]).unwrap();
    let sequences = [sequence].into_iter().collect::<Sequences>();
    let config = run.config();
    evaluate(&config, &mut model, &sequences, 8).unwrap();
    break_embedding(&mut model, 36);
    let error = evaluate(&config, &mut model, &sequences, 8)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`model.embed_tokens.weight`"), "{error}");
}

/// A gradient whose square is too large for f32 would leave the weight unchanged for ever.
#[test]
fn moments_that_are_not_finite_are_never_saved() {
    for state in ["f32", "8bit"] {
        let mut run = Run::new(&[&format!("optimizer.state={state}")]);
        run.architecture = sized(64, 64);
        run.set(&["run.max_steps=1", "optimizer.max_grad_norm=0"]);
        let config = run.config();
        let output = Output::open(&config, &run.options, &()).unwrap();
        let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
        let mut model = run.model(&run.cpu(), &config, prepared.capacity());
        for parameter in model.parameters() {
            let factor = match parameter.name {
                "model.norm.weight" => 1e-25,
                "lm_head.weight" => 1e25,
                _ => continue,
            };
            let values = parameter.weight.to_vec::<f32>().unwrap();
            let values: Vec<f32> = values.iter().map(|x| x * factor).collect();
            parameter.weight.write(&values).unwrap();
        }
        let trainer = Trainer::new(&config, &run.options, output, prepared, None, model, &());
        let error = trainer.unwrap().run(&StopFlag::default(), &()).unwrap_err();
        let expected = matches!(
            error,
            TrainError::WeightsNotFinite {
                step: 1,
                what: "moments of the optimizer",
                ..
            }
        );
        assert!(expected, "{state}: {error}");
        assert!(run.checkpoints().is_empty());
    }
}

#[test]
fn broken_weights_are_refused_before_the_first_step() {
    let run = Run::new(&[]);
    let config = run.config();
    let output = Output::open(&config, &run.options, &()).unwrap();
    let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
    let mut model = run.model(&run.cpu(), &config, prepared.capacity());
    break_embedding(&mut model, 36);
    let trainer = Trainer::new(&config, &run.options, output, prepared, None, model, &());
    let error = trainer.unwrap().run(&StopFlag::default(), &()).unwrap_err();
    assert!(
        matches!(error, TrainError::WeightsNotFinite { step: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_run_that_no_longer_gains_stops_early() {
    // At a learning rate this high the loss only rises.
    let mut run = Run::new(&[
        "data.eval=given",
        "run.eval_every=1",
        "run.patience=2",
        "run.max_steps=50",
    ]);
    run.set(&[
        "optimizer.learning_rate=3.0",
        "schedule.kind=constant",
        "run.save_every=100",
    ]);
    run.eval = Some(dataset(5, 9));
    let watch = Watch::new(None);
    let report = run.watched(&watch).unwrap();
    assert_eq!(report.outcome, Outcome::StoppedEarly);
    let notices = watch.notices.into_inner().unwrap();
    let worse = |notice: &String| notice.contains("has not become better on this data");
    assert!(notices.iter().any(worse), "{notices:?}");
    let (_, best) = report.best.unwrap();
    assert_eq!((report.steps, report.weights_step), (best + 2, best));
    // Resuming changes nothing: it has already stopped.
    let again = run.resume().go(None).unwrap();
    assert_eq!(
        (again.outcome, again.steps),
        (Outcome::StoppedEarly, report.steps)
    );
}

#[test]
fn nothing_to_train_is_an_error() {
    let mut run = Run::new(&[]);
    let untrained = run.train.sequences.iter().map(|sequence| {
        let tokens = sequence.unwrap().tokens().to_vec();
        let labels = vec![-100; tokens.len()];
        Sequence::from_labels(tokens, &labels).unwrap()
    });
    run.train.sequences = untrained.collect();
    let error = run.go(None).unwrap_err();
    let nothing = matches!(error, TrainError::NothingToTrain { held_out: 0 });
    assert!(nothing, "{error}");
    let nothing = TrainError::NothingToTrain { held_out: 1 }.to_string();
    assert!(nothing.contains("holds out 1 sequence:"), "{nothing}");
}

#[test]
fn losses_of_two_objectives_are_not_compared() {
    let mut run = Run::new(&["schedule.kind=constant", "objective.kind=dft"]);
    run.set(LORA);
    run.go(Some(2)).unwrap();
    run.resume().set(&["objective.kind=cross-entropy"]);
    run.options.allow_change = true;
    let watch = Watch::new(None);
    let report = run.watched(&watch).unwrap();
    let notices = watch.notices.into_inner().unwrap().join("\n");
    assert!(notices.contains("losses of another objective"), "{notices}");
    assert_eq!(report.first_loss, Some(run.losses()[2]));
}
