//! The built-in demonstration: a small Llama learns from nothing to answer generated questions, and
//! is then asked others.

use crate::{Prompt, RunError, Sampling, generate};
use serde::Serialize;
use serde_json::json;
use std::{fs, ops::ControlFlow, path::Path};
use tightrope_data::{
    Tokenizer,
    demo::{self, Record, Task},
};
use tightrope_device::Cpu;
use tightrope_formats::FormatError;
use tightrope_model::{Backend, Model, ModelConfig, TrainableModel};
use tightrope_train::{
    Config, Observer, Outcome, Output, Prepared, RunOptions, RunReport, StopFlag, Trainer,
    load_options, training,
};

/// Size of the demonstration. The default takes about a minute on two cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Number of optimizer steps.
    pub steps: u64,
    /// Number of records to train on.
    pub records: usize,
    /// Number of questions asked afterwards; none of them was trained on.
    pub questions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: 5000,
            records: 90_000,
            questions: 300,
        }
    }
}

/// Results of the demonstration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demonstration {
    /// Report of the training run.
    pub report: RunReport,
    /// Scores by kind of task; empty if the run was stopped.
    pub scores: Vec<Score>,
    /// The first question of each kind, with the model's answer.
    pub examples: Vec<Example>,
    /// Seconds that training would have taken with padded batches, from the number of their tokens
    /// and the speed measured here.
    pub padded_seconds: f64,
}

/// Score of a kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Kind of question.
    pub task: Task,
    /// Number of questions asked.
    pub asked: usize,
    /// Number of right answers.
    pub right: usize,
}

/// A question and its answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Kind of the question.
    pub task: Task,
    /// The question.
    pub question: String,
    /// The right answer.
    pub expected: String,
    /// The model's answer.
    pub answer: String,
    /// Whether the answers agree.
    pub right: bool,
}

/// Largest number of tokens of the tokenizer.
const VOCABULARY: usize = 768;

/// File of training records in the output folder.
const RECORDS: &str = "train.jsonl";

/// Configuration of the demonstration, without the keys that `settings` decides.
const CONFIGURATION: &str = r#"
model = "tightrope/demonstration"
device = "cpu"
precision = "f32"
[data]
train_on = "assistant"
max_length = 256
overlong = "drop"
[packing]
capacity = 512
[optimizer]
learning_rate = 3e-3
beta2 = 0.98
weight_decay = 0.01
[schedule]
warmup_ratio = 0.05
min_ratio = 0.05
[run]
save_every = 1000
keep = 1
"#;

/// Runs the demonstration in `output`, and replaces an earlier demonstration there unless the run
/// is resumed. Any other run in that folder is refused, as everywhere.
pub fn run(
    output: &Path,
    settings: &Settings,
    options: &RunOptions,
    stop: &StopFlag,
    observer: &dyn Observer,
) -> Result<Demonstration, RunError> {
    let path = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
    let sets = [
        format!("output={}", path(output)),
        format!("data.train=[{}]", path(&output.join(RECORDS))),
        format!("run.max_steps={}", settings.steps),
    ];
    let config = Config::parse(CONFIGURATION, Path::new("demonstration.toml"), &sets)?;
    let options = RunOptions {
        overwrite: options.overwrite || (!options.resume && Output::is_demonstration(output)),
        ..*options
    };
    // The model is too small for a GPU to be faster.
    let device = Cpu::new(options.threads)?;
    let mut output = Output::open(&config, &options, observer)?;
    output.begin(observer)?;
    let file = output.demonstrate(RECORDS)?;
    let records = demo::split(config.seed, settings.records, settings.questions);
    let lines = demo::json_lines(&records.train);
    fs::write(&file, lines).map_err(FormatError::io(&file))?;
    let tokenizer = demo::tokenizer(&records.train, VOCABULARY)?;
    let paths = [file];
    let train = tightrope_data::load(&paths, &config.data_options(), Some(&tokenizer), observer)?;
    observer.loaded(&paths, &train.report);

    let padding = tokenizer.pad_id().unwrap_or(0);
    let prepared = Prepared::new(&config, &train, None, padding)?;
    let load = load_options(&config, prepared.capacity());
    let training = training(&config);
    let model = TrainableModel::random(&device, architecture(&tokenizer)?, &training, &load)?;
    let mut trainer = Trainer::new(
        &config,
        &options,
        output,
        prepared,
        Some(&tokenizer),
        model,
        observer,
    )?;
    let report = trainer.run(stop, observer)?;
    let mut demonstration = Demonstration {
        padded_seconds: report.elapsed_s * report.padding.factor(),
        report,
        scores: Vec::new(),
        examples: Vec::new(),
    };
    if demonstration.report.outcome == Outcome::Finished && !stop.is_requested() {
        let mut model = trainer.into_model();
        for record in &records.held_out {
            demonstration.ask(&mut model, &tokenizer, record, config.data.max_length)?;
        }
        demonstration.scores.sort_by_key(|score| score.task);
        demonstration.examples.sort_by_key(|example| example.task);
    }
    Ok(demonstration)
}

/// A third of a million parameters can be taught something in a minute on two cores.
fn architecture(tokenizer: &Tokenizer) -> Result<ModelConfig, RunError> {
    let settings = json!({
        "model_type": "llama",
        "vocab_size": tokenizer.vocab_size(),
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": true,
        "initializer_range": 0.05,
        "bos_token_id": tokenizer.bos_id(),
        "eos_token_id": tokenizer.eos_id(),
    });
    let config = ModelConfig::from_json(&settings);
    config.map_err(|error| {
        let file = "config.json".into();
        tightrope_model::ModelError::Config { file, error }.into()
    })
}

impl Demonstration {
    /// Asks a question, unless question and answer together are longer than the training data.
    fn ask<D: Backend>(
        &mut self,
        model: &mut Model<D>,
        tokenizer: &Tokenizer,
        record: &Record,
        max_length: usize,
    ) -> Result<(), RunError> {
        let prompt = Prompt::Chat(record.prompt()).encode(tokenizer)?;
        let room = max_length.saturating_sub(prompt.len());
        if tokenizer.encode(&record.answer, false)?.len() >= room {
            return Ok(());
        }
        let sampling = Sampling::default();
        let end_ids = tokenizer.end_ids();
        let answer = generate(model, &prompt, room, &sampling, end_ids, |_| {
            Ok(ControlFlow::Continue(()))
        })?;
        let answer = tokenizer.decode(&answer.tokens, true)?;
        let right = record.accepts(&answer);
        if let Some(score) = self.scores.iter_mut().find(|s| s.task == record.task) {
            score.asked += 1;
            score.right += usize::from(right);
            return Ok(());
        }
        self.scores.push(Score {
            task: record.task,
            asked: 1,
            right: right.into(),
        });
        self.examples.push(Example {
            task: record.task,
            question: record.question.clone(),
            expected: record.answer.clone(),
            answer: answer.trim().to_owned(),
            right,
        });
        Ok(())
    }
}
