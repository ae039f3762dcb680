//! Tokens that are kept train what tokens in memory train.

#[path = "../../train/tests/common/mod.rs"]
mod common;

use common::{architecture, dataset};
use std::{fs, path::Path, sync::Mutex};
use tightrope_data::Progress;
use tightrope_device::Cpu;
use tightrope_model::{LoadOptions, Model};
use tightrope_run::train;
use tightrope_train::{Config, Observer, RunOptions, StopFlag};

#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

impl Progress for Notices {}
impl Observer for Notices {
    fn notice(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A model folder and data files; returns the configuration file.
fn write(folder: &Path) -> std::path::PathBuf {
    let device = Cpu::new(1).unwrap();
    let base = folder.join("base");
    fs::create_dir(&base).unwrap();
    let model = Model::random(&device, architecture(), &LoadOptions::new(64)).unwrap();
    model.save_merged(&base).unwrap();
    let line = |sequence: &tightrope_packing::Sequence| {
        let row = serde_json::json!({"input_ids": sequence.tokens(), "completion_mask":
            sequence.tokens().iter().map(|token| token % 4 / 3).collect::<Vec<_>>()});
        format!("{row}\n")
    };
    let all = dataset(40, 1).sequences;
    let lines: String = all.iter().map(|s| line(&s.unwrap())).collect();
    fs::write(folder.join("train.jsonl"), lines).unwrap();
    let file = folder.join("tiny.toml");
    let text = r#"
        model = "base"
        [data]
        cache = "tokens"
        eval_ratio = 0.2
        [[data.train]]
        path = "train.jsonl"
        weight = 1.5
        [packing]
        capacity = 32
        share_prefix = true
        [lora]
        r = 4
        [optimizer]
        learning_rate = 0.02
        [run]
        epochs = 2
        eval_every = 5
    "#;
    fs::write(&file, text).unwrap();
    file
}

/// Training, and what is held out and repeated, has the same bits wherever the tokens lie.
#[test]
fn they_train_the_same_bits_as_tokens_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path());
    let trained = |output: &str, cache: &[String]| {
        let output = folder.path().join(output);
        let mut sets = vec![format!("output={}", output.display())];
        sets.extend_from_slice(cache);
        let config = Config::load(&file, &sets).unwrap();
        let notices = Notices::default();
        train(
            &config,
            &RunOptions::default(),
            &StopFlag::default(),
            &notices,
        )
        .unwrap();
        let out = output.as_path();
        let weights = fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
        let rows = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let rows = rows.lines().map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let numbers = ["loss", "grad_norm", "eval_loss", "tokens"];
            numbers.map(|key| row[key].to_string())
        });
        let keeps = notices.0.into_inner().unwrap();
        let keeps = keeps.iter().any(|text| text.contains("keeps the tokens"));
        (weights, rows.collect::<Vec<_>>(), keeps)
    };
    let memory = trained("memory", &["data.cache=off".to_owned()]);
    let first = trained("first", &[]);
    let second = trained("second", &[]);
    assert_eq!([memory.2, first.2, second.2], [false, true, false]);
    for file in [first, second] {
        assert_eq!(memory.1, file.1);
        assert!(memory.0 == file.0, "other weights");
    }
}
