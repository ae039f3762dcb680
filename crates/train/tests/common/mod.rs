//! A tiny model, a little data, and runs with them.
#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_data::{Dataset, ExampleKind, Progress};
use tightrope_device::Cpu;
use tightrope_model::{Backend, ModelConfig, TrainableModel};
use tightrope_packing::{IGNORED, Sequence};
use tightrope_testkit::Random;
use tightrope_train::{
    Config, Observer, Output, Plan, Prepared, RunOptions, RunReport, StepRow, StopFlag, TrainError,
    Trainer, batches, load_options, training,
};

pub(crate) const VOCABULARY: u32 = 37;

/// Sequences of 2 to 20 tokens that can be learned: each token follows from the one before.
pub(crate) fn dataset(count: usize, seed: u64) -> Dataset {
    let mut random = Random::new(seed);
    let sequence = |_| {
        let length = 2 + random.below(19);
        let mut tokens = vec![random.below(VOCABULARY as usize) as u32];
        while tokens.len() < length {
            tokens.push((tokens[tokens.len() - 1] * 5 + 3) % VOCABULARY);
        }
        let mut labels: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
        // The length of the prompt, which is not trained, varies, so that passes differ in trained
        // tokens.
        let prompt = random.below(length - 1);
        labels[..prompt].fill(IGNORED.into());
        Sequence::from_labels(tokens, &labels).unwrap()
    };
    Dataset {
        sequences: (0..count).map(sequence).collect(),
        ..Dataset::default()
    }
}

/// Pairs, or sequences, with prompts that several have.
pub(crate) fn alike(pairs: bool) -> Dataset {
    let sequence = |row: u32| {
        let prompt = (0..5 + row / 4).map(|token| (token * 7 + row / 2 * 3) % VOCABULARY);
        let answer = (0..1 + row % 5).map(|token| (token * 5 + row) % VOCABULARY);
        let tokens: Vec<u32> = prompt.clone().chain(answer).collect();
        let untrained = prompt.map(|_| i64::from(IGNORED));
        let mut labels: Vec<i64> = untrained.collect();
        labels.extend(tokens[labels.len()..].iter().map(|&token| i64::from(token)));
        Sequence::from_labels(tokens, &labels).unwrap()
    };
    Dataset {
        sequences: (0..24).map(sequence).collect(),
        kind: match pairs {
            true => ExampleKind::Pairs,
            false => ExampleKind::Sequences,
        },
        ..Dataset::default()
    }
}

pub(crate) fn architecture() -> ModelConfig {
    sized(16, 24)
}

/// A configuration with this number of hidden and intermediate features.
pub(crate) fn sized(hidden: usize, intermediate: usize) -> ModelConfig {
    ModelConfig::from_json(&settings(hidden, intermediate)).unwrap()
}

pub(crate) fn settings(hidden: usize, intermediate: usize) -> Value {
    json!({
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": false,
        // Large enough that the model is not symmetric to start with.
        "initializer_range": 0.2,
    })
}

/// A run in its own folder; configured by lines of TOML and changed by `key=value`.
pub(crate) struct Run {
    pub output: PathBuf,
    pub sets: Vec<String>,
    pub architecture: ModelConfig,
    pub train: Dataset,
    pub eval: Option<Dataset>,
    pub options: RunOptions,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) const LORA: &[&str] = &["lora.r=4", "lora.dropout=0.2", "lora.lora_plus_ratio=2"];

impl Run {
    pub(crate) fn new(sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Self {
            output: folder.path().join("run"),
            sets: Vec::new(),
            architecture: architecture(),
            train: dataset(30, 1),
            eval: None,
            options: RunOptions {
                threads: 1,
                ..RunOptions::default()
            },
            _folder: Some(folder),
        };
        let usual = [
            "packing.capacity=32",
            "optimizer.learning_rate=0.01",
            "run.max_steps=7",
            "run.save_every=2",
        ];
        run.set(&usual);
        run.set(sets);
        run
    }

    pub(crate) fn set(&mut self, sets: &[&str]) {
        self.sets.extend(sets.iter().map(|set| (*set).to_owned()));
    }

    pub(crate) fn resume(&mut self) -> &mut Self {
        self.options.resume = true;
        self
    }

    pub(crate) fn config(&self) -> Config {
        let mut sets = self.sets.clone();
        sets.push(format!("output={}", self.output.display()));
        Config::parse("model = \"tiny/random\"", Path::new("tiny.toml"), &sets).unwrap()
    }

    pub(crate) fn cpu(&self) -> Cpu {
        Cpu::new(self.options.threads).unwrap()
    }

    pub(crate) fn model<D: Backend>(
        &self,
        device: &D,
        config: &Config,
        capacity: usize,
    ) -> TrainableModel<D> {
        let options = load_options(config, capacity);
        let architecture = self.architecture.clone();
        TrainableModel::random(device, architecture, &training(config), &options).unwrap()
    }

    /// Runs to the end, or until `stop_after` steps of the run are done.
    pub(crate) fn go(&self, stop_after: Option<u64>) -> Result<RunReport, TrainError> {
        self.watched(&Watch::new(stop_after))
    }

    pub(crate) fn watched(&self, watch: &Watch) -> Result<RunReport, TrainError> {
        self.watched_on(&self.cpu(), watch)
    }

    pub(crate) fn watched_on<D: Backend>(
        &self,
        device: &D,
        watch: &Watch,
    ) -> Result<RunReport, TrainError> {
        let config = self.config();
        let output = Output::open(&config, &self.options, watch)?;
        let (mut train, mut eval) = (self.train.clone(), self.eval.clone());
        batches::share(&config, &mut train, u64::MAX)?;
        if let Some(eval) = &mut eval {
            batches::share_eval(&config, eval, u64::MAX)?;
        }
        let prepared = Prepared::new(&config, &train, eval.as_ref(), 0)?;
        let model = self.model(device, &config, prepared.capacity());
        let trainer = Trainer::new(&config, &self.options, output, prepared, None, model, watch);
        trainer?.run(&watch.stop, watch)
    }

    pub(crate) fn rows(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.output.join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The loss of every step.
    pub(crate) fn losses(&self) -> Vec<f64> {
        let rows = self.rows();
        rows.iter()
            .map(|row| row["loss"].as_f64().unwrap())
            .collect()
    }

    /// Everything that must be the same bit for bit: weights, optimizer, and metrics except times.
    pub(crate) fn result(&self, report: &RunReport) -> (Vec<u8>, Vec<u8>, Vec<Value>) {
        let file = ["adapter_model.safetensors", "model.safetensors"];
        let mut files = file.iter().map(|name| report.weights.join(name));
        let weights = fs::read(files.find(|path| path.exists()).unwrap()).unwrap();
        let checkpoint = report.checkpoint.as_ref().unwrap();
        let optimizer = fs::read(checkpoint.join("optimizer.safetensors")).unwrap();
        let mut rows = self.rows();
        for row in &mut rows {
            let row = row.as_object_mut().unwrap();
            for time in ["elapsed_s", "tokens_per_second", "peak_memory_bytes"] {
                row.remove(time);
            }
        }
        (weights, optimizer, rows)
    }

    pub(crate) fn checkpoints(&self) -> Vec<String> {
        let entries = fs::read_dir(self.output.join("checkpoints")).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// Stopped after one step and after three and resumed each time, a run ends with the bits of one that
/// never stopped.
pub(crate) fn check_resuming<D: Backend>(device: &D, fresh: impl Fn() -> Run) {
    let whole = fresh();
    let expected = whole.result(&whole.watched_on(device, &Watch::new(None)).unwrap());
    let mut run = fresh();
    for stop in [1, 3] {
        run.watched_on(device, &Watch::new(Some(stop))).unwrap();
        run.resume();
    }
    let report = run.watched_on(device, &Watch::new(None)).unwrap();
    assert!(
        run.result(&report) == expected,
        "stopped and resumed, the bits differ"
    );
}

/// One thread and three end with the same bits.
pub(crate) fn check_threads(fresh: impl Fn() -> Run) {
    let results = [1, 3].map(|threads| {
        let mut run = fresh();
        run.options.threads = threads;
        run.result(&run.go(None).unwrap())
    });
    assert!(results[0] == results[1]);
}

/// Asks to stop after a step, and records its events.
pub(crate) struct Watch {
    pub stop: StopFlag,
    stop_after: Option<u64>,
    pub notices: std::sync::Mutex<Vec<String>>,
    pub plan: std::sync::Mutex<Option<Plan>>,
}

impl Watch {
    pub(crate) fn new(stop_after: Option<u64>) -> Self {
        Self {
            stop: StopFlag::default(),
            stop_after,
            notices: std::sync::Mutex::default(),
            plan: std::sync::Mutex::default(),
        }
    }
}

impl Progress for Watch {}

impl Observer for Watch {
    fn planned(&self, plan: &Plan) {
        *self.plan.lock().unwrap() = Some(plan.clone());
    }
    fn stepped(&self, row: &StepRow) {
        if self.stop_after.is_some_and(|step| row.step >= step) {
            self.stop.request();
        }
    }
    fn notice(&self, text: &str) {
        self.notices.lock().unwrap().push(text.to_owned());
    }
}
