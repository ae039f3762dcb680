//! From a configuration file to files that other tools read, and back.

#[path = "../../train/tests/common/mod.rs"]
mod common;

use common::{VOCABULARY, architecture, dataset};
use std::{fs, ops::ControlFlow, path::Path, sync::Mutex};
use tightrope_data::Progress;
use tightrope_device::{Cpu, DType};
use tightrope_model::{LoadOptions, Model, TrainableModel, Training};
use tightrope_run::{
    Base, MergeOptions, RunError, Sampling, evaluate_config, generate, merge, train,
};
use tightrope_train::{Config, Observer, Outcome, RunOptions, StopFlag, TrainError, evaluate};

fn options(adapter: Option<&Path>) -> LoadOptions {
    LoadOptions {
        adapter: adapter.map(Path::to_owned),
        seed: 3,
        ..LoadOptions::new(64)
    }
}

/// A model folder and data files; returns the configuration file.
fn write(folder: &Path) -> std::path::PathBuf {
    let device = Cpu::new(1).unwrap();
    let base = folder.join("base");
    fs::create_dir(&base).unwrap();
    let model = Model::random(&device, architecture(), &options(None)).unwrap();
    model.save_merged(&base).unwrap();
    let generation = r#"{"eos_token_id": [2, 3], "top_p": 0.8}"#;
    fs::write(base.join("generation_config.json"), generation).unwrap();
    let lines: String = dataset(40, 1)
        .sequences
        .iter()
        .map(|s| {
            format!(
                "{}\n",
                serde_json::json!({"input_ids": s.unwrap().tokens()})
            )
        })
        .collect();
    fs::write(folder.join("train.jsonl"), lines).unwrap();
    let file = folder.join("tiny.toml");
    let text = r#"
        model = "base"
        output = "out"
        [data]
        train = ["train.jsonl"]
        eval_ratio = 0.2
        [packing]
        capacity = 32
        [lora]
        r = 4
        [optimizer]
        learning_rate = 0.02
        [run]
        epochs = 4
        eval_every = 5
    "#;
    fs::write(&file, text).unwrap();
    file
}

/// The same, of two steps.
fn with_steps(folder: &Path) -> std::path::PathBuf {
    let file = write(folder);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("epochs = 4", "max_steps = 2")).unwrap();
    file
}

#[test]
fn a_configuration_file_is_all_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path());
    let config = Config::load(&file, &[]).unwrap();
    let stop = StopFlag::default();
    let run = |options: &RunOptions| train(&config, options, &stop, &());
    let report = run(&RunOptions::default()).unwrap();
    assert_eq!(report.outcome, Outcome::Finished);
    let (first, last) = (report.first_loss.unwrap(), report.last_loss.unwrap());
    assert!(last < 0.8 * first, "it learns: {first} to {last}");
    assert_eq!(report.weights, folder.path().join("out/adapter"));

    // The run is over: resuming changes nothing and evaluates nothing again.
    let resume = RunOptions {
        resume: true,
        ..RunOptions::default()
    };
    let again = run(&resume).unwrap();
    assert_eq!(
        (again.steps, again.first_step),
        (report.steps, report.steps)
    );
    assert_eq!(again.evaluation, report.evaluation);
    let before = report.evaluation_before.unwrap().loss;
    assert!(report.evaluation.unwrap().loss < before, "it learns");

    // The separate adapter and the merged model predict the same as the trained model.
    let device = Cpu::new(1).unwrap();
    let merged = folder.path().join("merged");
    let base = folder.path().join("base");
    let adapter = report.weights.as_path();
    let base_name = base.to_str().unwrap();
    let mut adapted = config.clone();
    adapted.adapter = Some(adapter.to_owned());
    let written = |options: &MergeOptions| merge(&adapted, &merged, options, &());
    written(&MergeOptions::default()).unwrap();
    let refused = written(&MergeOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    let overwrite = MergeOptions {
        overwrite: true,
        ..MergeOptions::default()
    };
    written(&overwrite).unwrap();

    // The written files keep the base's generation settings, and name the base so that other tools
    // find it.
    let json = |path: std::path::PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let generation = json(merged.join("generation_config.json"));
    assert_eq!(
        generation,
        serde_json::json!({"eos_token_id": [2, 3], "top_p": 0.8})
    );
    let settings = json(adapter.join("adapter_config.json"));
    assert_eq!(settings["base_model_name_or_path"], base_name);
    assert!(base.is_absolute());

    // A type of its own for every tensor.
    let half = MergeOptions {
        dtype: Some(DType::BF16),
        ..overwrite.clone()
    };
    written(&half).unwrap();
    assert_eq!(json(merged.join("config.json"))["dtype"], "bfloat16");
    written(&overwrite).unwrap();
    // Half of the adapter twice is the adapter, as a model or as one adapter.
    let both = folder.path().join("both");
    let mut halves = MergeOptions {
        adapters: vec![(adapter.to_owned(), 0.5); 2],
        ..MergeOptions::default()
    };
    merge(&adapted, &both, &halves, &()).unwrap();
    let one = folder.path().join("one");
    halves.as_adapter = true;
    merge(&adapted, &one, &halves, &()).unwrap();
    assert_eq!(
        json(one.join("adapter_config.json"))["base_model_name_or_path"],
        base_name
    );
    let data = dataset(40, 1).sequences;
    let mut losses = Vec::new();
    for (path, adapter) in [
        (&base, Some(adapter)),
        (&merged, None),
        (&base, None),
        (&both, None),
        (&base, Some(one.as_path())),
    ] {
        let options = options(adapter);
        let mut model = Model::load(&device, path, &options).unwrap();
        losses.push(evaluate(&config, &mut model, &data, 64).unwrap());
    }
    assert_eq!(losses[0].perplexity, Some(losses[0].loss.exp()));
    let close = (losses[0].loss - losses[1].loss).abs() <= 1e-5 * losses[0].loss;
    assert!(close, "{losses:?}");
    assert!(losses[0].loss < 0.8 * losses[2].loss, "{losses:?}");
    for other in &losses[3..] {
        let close = (losses[0].loss - other.loss).abs() <= 1e-5 * losses[0].loss;
        assert!(close, "{losses:?}");
    }
}

#[test]
fn a_run_does_not_write_where_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path());
    fs::create_dir(folder.path().join("all")).unwrap();
    fs::rename(folder.path().join("base"), folder.path().join("all/model")).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let model = format!("model={}", at("all/model"));
    for output in [
        at("all"),
        at("all/model"),
        at("all/model/new"),
        at(""),
        at("all/../all"),
    ] {
        let sets = [model.clone(), format!("output={output}")];
        let config = Config::load(&file, &sets).unwrap();
        let options = RunOptions::default();
        let error = train(&config, &options, &StopFlag::default(), &()).unwrap_err();
        let refused = matches!(error, RunError::Train(TrainError::OutputHoldsInput { .. }));
        assert!(refused, "{error}");
        assert!(!folder.path().join("all/.lock").exists());
    }
}

#[test]
fn data_may_lie_in_the_output_folder_where_a_run_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = with_steps(folder.path());
    let run = |data: &Path, overwrite| {
        let sets = [
            format!("data.train={}", data.display()),
            format!("output={}", folder.path().join("out").display()),
        ];
        let config = Config::load(&file, &sets).unwrap();
        let options = RunOptions {
            overwrite,
            ..RunOptions::default()
        };
        train(&config, &options, &StopFlag::default(), &())
    };
    let data = Config::load(&file, &[])
        .unwrap()
        .data
        .train
        .remove(0)
        .path
        .remove(0);
    let text = fs::read_to_string(data).unwrap();
    let at = |name: &str| {
        let path = folder.path().join("out").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
        path
    };
    for name in ["train.jsonl", "data/train.jsonl"] {
        let data = at(name);
        run(&data, true).unwrap();
        assert_eq!(fs::read_to_string(&data).unwrap(), text);
    }
    for name in [
        "checkpoints/train.jsonl",
        "adapter/train.jsonl",
        "merged/train.jsonl",
        ".tightrope-tmp-train.jsonl",
    ] {
        let data = at(name);
        let error = run(&data, true).unwrap_err();
        let refused = matches!(error, RunError::Train(TrainError::OutputOverData { .. }));
        assert!(refused, "{name}: {error}");
        let (first, error) = (name.split('/').next().unwrap(), error.to_string());
        assert!(error.contains(&format!("`{first}`")), "{error}");
        fs::remove_file(data).unwrap();
    }
}

#[test]
fn a_run_goes_on_from_wherever_its_files_are_and_from_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = with_steps(folder.path());
    let run = |sets: &[String], resume| {
        let config = Config::load(&file, sets).unwrap();
        let options = RunOptions {
            resume,
            ..RunOptions::default()
        };
        train(&config, &options, &StopFlag::default(), &())
    };
    run(&[], false).unwrap();
    let (base, moved) = (folder.path().join("base"), folder.path().join("moved"));
    fs::rename(&base, &moved).unwrap();
    let there = format!("model={}", moved.display());
    run(&[there.clone(), "run.max_steps=3".into()], true).unwrap();

    // One byte of the weights, then one number of the configuration.
    let weights = moved.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, changed).unwrap();
    let more = [there, "run.max_steps=4".into()];
    let error = run(&more, true).unwrap_err().to_string();
    assert!(error.contains("model weights"), "{error}");
    fs::write(&weights, bytes).unwrap();
    let settings = moved.join("config.json");
    let text = fs::read_to_string(&settings).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["rope_theta"] = 5000.0.into();
    fs::write(&settings, json.to_string()).unwrap();
    let error = run(&more, true).unwrap_err().to_string();
    assert!(error.contains("model configuration"), "{error}");
    fs::write(&settings, text).unwrap();
    run(&more, true).unwrap();
}

/// The adapter that a run starts from may move, but may not change.
#[test]
fn a_run_goes_on_from_its_own_adapter_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = with_steps(folder.path());
    let at = |name: &str| folder.path().join(name);
    let run = |sets: &[String], resume| {
        let config = Config::load(&file, sets).unwrap();
        let options = RunOptions {
            resume,
            ..RunOptions::default()
        };
        train(&config, &options, &StopFlag::default(), &())
    };
    let steps = |steps: u32| format!("run.max_steps={steps}");
    let first = [steps(1), format!("output={}", at("first").display())];
    run(&first, false).unwrap();
    let adapter = |name: &str| format!("adapter={}", at(name).display());
    run(&[steps(1), adapter("first/adapter")], false).unwrap();
    fs::rename(at("first/adapter"), at("moved")).unwrap();
    run(&[steps(2), adapter("moved")], true).unwrap();

    for (name, what) in [
        ("adapter_model.safetensors", "adapter weights"),
        ("adapter_config.json", "adapter configuration"),
    ] {
        let path = at("moved").join(name);
        let bytes = fs::read(&path).unwrap();
        let changed = match name.strip_suffix(".json") {
            None => {
                let mut changed = bytes.clone();
                *changed.last_mut().unwrap() ^= 1;
                changed
            }
            Some(_) => {
                let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                json["lora_alpha"] = 5.into();
                json.to_string().into_bytes()
            }
        };
        fs::write(&path, changed).unwrap();
        let error = run(&[steps(3), adapter("moved")], true).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        fs::write(&path, bytes).unwrap();
    }
    run(&[steps(3), adapter("moved")], true).unwrap();
}

/// Notices that were given.
#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

impl Progress for Notices {}
impl Observer for Notices {
    fn notice(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

#[test]
fn an_adapter_of_another_model_is_not_used_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(&write(folder.path()), &[]).unwrap();
    let stop = StopFlag::default();
    let report = train(&config, &RunOptions::default(), &stop, &()).unwrap();
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let options = LoadOptions {
        seed: 4,
        ..options(None)
    };
    let model = Model::random(&Cpu::new(1).unwrap(), architecture(), &options).unwrap();
    model.save_merged(&other).unwrap();
    let said = |model: &Path| {
        let mut config = config.clone();
        config.model = model.display().to_string();
        config.adapter = Some(report.weights.clone());
        config.data.eval = config.data.train.clone();
        let notices = Notices::default();
        evaluate_config(&config, 1, 5, &notices).unwrap();
        config.output = folder.path().join("again");
        let options = RunOptions {
            overwrite: true,
            ..RunOptions::default()
        };
        train(&config, &options, &stop, &notices).unwrap();
        let notices = notices.0.into_inner().unwrap();
        let about = notices
            .iter()
            .filter(|text| text.contains("was trained on"));
        about.count()
    };
    assert_eq!(said(&folder.path().join("base")), 0);
    assert_eq!(said(&other), 2);
}

#[test]
fn sequences_beyond_the_positions_of_the_model_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(&write(folder.path()), &[]).unwrap();
    let said = |positions: u64| {
        let file = folder.path().join("base/config.json");
        let mut settings: serde_json::Value =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        settings["max_position_embeddings"] = positions.into();
        fs::write(&file, settings.to_string()).unwrap();
        let notices = Notices::default();
        let base = Base::of(&config, &notices).unwrap();
        let data = base.load(&config.data.train, &config, &notices).unwrap();
        let longer = (0..data.sequences.len())
            .filter(|&index| data.sequences.length(index) as u64 > positions);
        (longer.count(), notices.0.into_inner().unwrap().join("\n"))
    };
    assert_eq!(said(4096), (0, String::new()));
    let (longer, text) = said(5);
    let expected = format!("{longer} sequences longer than the 5 positions");
    assert!(longer > 1 && text.contains(&expected), "{text}");
}

#[test]
fn weights_that_are_not_finite_are_not_merged() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path());
    let base = folder.path().join("base");
    let device = Cpu::new(1).unwrap();
    let mut broken = TrainableModel::load(&device, &base, &Training::Full, &options(None)).unwrap();
    let mut parameters = broken.parameters();
    let weight = &mut parameters[0].weight;
    let mut values = weight.to_vec::<f32>().unwrap();
    values[1] = f32::NAN;
    weight.write(&values).unwrap();
    drop(parameters);
    broken.save_merged(&base).unwrap();
    let config = Config::load(&file, &[]).unwrap();
    let merged = folder.path().join("merged");
    let error = merge(&config, &merged, &MergeOptions::default(), &()).unwrap_err();
    assert!(error.to_string().contains("not a number"), "{error}");
    assert!(!merged.exists());
}

#[test]
fn an_answer_does_not_depend_on_the_cache() {
    let device = Cpu::new(1).unwrap();
    let mut model = Model::random(&device, architecture(), &options(None)).unwrap();
    let prompt = [1, 2, 3];
    let sampling = Sampling {
        temperature: 0.8,
        ..Sampling::default()
    };
    let mut seen = Vec::new();
    let answer = generate(&mut model, &prompt, 9, &sampling, &[], |token| {
        seen.push(token);
        Ok(ControlFlow::Continue(()))
    });
    let answer = answer.unwrap();
    assert_eq!((answer.tokens.len(), &answer.tokens), (9, &seen));
    // The same, each token from the whole text so far.
    let mut text = prompt.to_vec();
    for (position, token) in answer.tokens.iter().enumerate() {
        let mut cache = model.cache(16).unwrap();
        let logits = model.prefill(&mut cache, &text).unwrap();
        assert_eq!(logits.len(), VOCABULARY as usize);
        assert_eq!(sampling.choose(&logits, position as u64), Some(*token));
        text.push(*token);
    }
    // An end token ends the answer and is not part of it; the caller may end it too.
    let first = answer.tokens[0];
    let ended = generate(&mut model, &prompt, 9, &sampling, &[first], |_| {
        Ok(ControlFlow::Continue(()))
    });
    assert!(ended.unwrap().tokens.is_empty());
    let stopped = generate(&mut model, &prompt, 9, &sampling, &[], |_| {
        Ok(ControlFlow::Break(()))
    });
    assert_eq!(stopped.unwrap().tokens, [first]);
}
