//! Compares predicted with measured times: real data packed, padding-free, padded and bucketed,
//! step by step in turn, in one process.

use super::rows::Rows;
use crate::{Row, Suite, row};
use anyhow::{Result, ensure};
use serde_json::json;
use std::{path::Path, time::Instant};
use tightrope_data::Sequences;
use tightrope_device::Cpu;
use tightrope_model::{Backend, ModelConfig, TokenWeights, TrainableModel};
use tightrope_packing::{Batch, IGNORED, Sequence};
use tightrope_run::Base;
use tightrope_train::{Config, Optimizer, batches::Batches, gradient_norm, load_options, training};

pub(crate) const SUITE: Suite = Suite {
    name: "batching",
    about: "predicted and measured time of an epoch of real instructions (alpaca), a small Llama, packs \
            of 1,024 against padding-free, padded and bucketed batches of as many sequences",
    run,
};

/// Files of `cargo xtask fetch smollm2` and `cargo xtask fetch alpaca`; only the tokenizer of the
/// model is used.
const FILES: [(&str, &str); 2] = [
    ("models/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"),
    ("datasets/alpaca_en_demo.json", "alpaca"),
];
const SEQUENCES: usize = 96;
const CAPACITY: usize = 1024;
/// Number of times that each step is done; the fastest time counts.
const ROUNDS: usize = 3;
/// Ids are reduced to this number: the lengths stay real, and the head does not outweigh the
/// layers.
const VOCABULARY: u32 = 2048;
const MODES: [&str; 4] = ["best-fit", "padding-free", "padded", "bucketed"];

fn run(emit: &mut dyn FnMut(Row)) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (file, item) in FILES {
        let there = root.join(file).exists();
        ensure!(there, "{file} is not there: cargo xtask fetch {item}");
    }
    let [model, data] = FILES.map(|(file, _)| json!(root.join(file)).to_string());
    let config = |mode: &str, batch: &str| {
        let sets = [
            format!("model={model}"),
            format!("data.train=[{data}]"),
            format!("packing.mode={mode}"),
            format!("packing.capacity={CAPACITY}"),
            batch.to_owned(),
        ];
        Config::parse("", Path::new("bench.toml"), &sets)
    };
    let packed = config("best-fit", "batch.packs_per_step=1")?;
    let base = Base::open(&packed.model, &Rows::default())?;
    let (data, _) = base.load_both(&packed, &Rows::default())?;
    let sequences = data.sequences.iter().take(SEQUENCES);
    let sequences = sequences.map(|sequence| folded(&sequence?));
    let sequences: Sequences = sequences.collect::<Result<_>>()?;
    let padding_token = base.padding_token() % VOCABULARY;

    let mut all = vec![Batches::new(&packed, &sequences, padding_token)?];
    let count = all[0].packing().pieces().len() as f64;
    let batch_size = (count / all[0].steps_per_epoch() as f64).round();
    for mode in &MODES[1..] {
        let config = config(mode, &format!("batch.sequences_per_step={batch_size}"))?;
        all.push(Batches::new(&config, &sequences, padding_token)?);
    }
    let capacity = all
        .iter()
        .map(Batches::max_tokens)
        .max()
        .unwrap_or(CAPACITY);
    let device = Cpu::new(0)?;
    let (training, load) = (training(&packed), load_options(&packed, capacity));
    let mut model = TrainableModel::random(&device, architecture()?, &training, &load)?;
    let mut optimizer = Optimizer::new(&mut model, &packed.optimizer, 1.0)?;

    let mut epochs = all.iter_mut().map(Epoch::new).collect::<Result<Vec<_>>>()?;
    let longest = epochs.iter().map(|e| e.steps.len()).max().unwrap_or(0);
    for _round in 0..ROUNDS {
        for step in 0..longest {
            for epoch in &mut epochs {
                epoch.time(step, &mut model, &mut optimizer)?;
            }
        }
    }

    let head = f64::from(VOCABULARY) * HIDDEN as f64;
    let weights: usize = model.parameters().iter().map(|p| p.weight.len()).sum();
    let layers = weights as f64 - head;
    let tokens = epochs[0].count(Batch::real_tokens);
    for (mode, epoch) in MODES.iter().zip(&epochs) {
        let trained = epoch.count(Batch::trained_tokens);
        ensure!(
            (epoch.count(Batch::real_tokens), trained)
                == (tokens, epochs[0].count(Batch::trained_tokens)),
            "{mode} has other tokens"
        );
        let work = |e: &Epoch| e.count(Batch::len) as f64 * layers + trained as f64 * head;
        emit(row([
            ("mode", (*mode).into()),
            ("sequences", SEQUENCES.into()),
            ("sequences_per_step", batch_size.into()),
            ("steps", epoch.steps.len().into()),
            ("tokens", tokens.into()),
            ("trained_tokens", trained.into()),
            ("computed_tokens", epoch.count(Batch::len).into()),
            ("epoch_s", epoch.seconds().into()),
            (
                "predicted_by_tokens",
                (epoch.count(Batch::len) as f64 / epochs[0].count(Batch::len) as f64).into(),
            ),
            (
                "predicted_by_multiplications",
                (work(epoch) / work(&epochs[0])).into(),
            ),
            ("measured", (epoch.seconds() / epochs[0].seconds()).into()),
        ]));
    }
    Ok(())
}

/// Steps of an epoch in one mode, and the fastest time of each.
struct Epoch {
    steps: Vec<Vec<Batch>>,
    fastest_s: Vec<f64>,
}

impl Epoch {
    fn new(batches: &mut Batches<'_>) -> Result<Self> {
        let steps = 1..=batches.steps_per_epoch();
        let steps = steps.map(|step| batches.step(step));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let fastest_s = vec![f64::INFINITY; steps.len()];
        Ok(Self { steps, fastest_s })
    }

    fn count(&self, of: fn(&Batch) -> usize) -> usize {
        self.steps.iter().flatten().map(of).sum()
    }

    fn seconds(&self) -> f64 {
        self.fastest_s.iter().sum()
    }

    /// Times a whole step like that of the trainer: forward, backward, gradient norm, update.
    fn time<D: Backend>(
        &mut self,
        step: usize,
        model: &mut TrainableModel<D>,
        optimizer: &mut Optimizer<D>,
    ) -> Result<()> {
        let Some(passes) = self.steps.get(step) else {
            return Ok(());
        };
        let trained: usize = passes.iter().map(Batch::trained_tokens).sum();
        let scale = 1.0 / trained.max(1) as f32;
        let start = Instant::now();
        model.zero_gradients()?;
        let mut loss = 0.0;
        for pass in passes {
            let weights = vec![scale; pass.len()];
            let weights = TokenWeights::Known(&weights);
            loss += model.forward_backward(pass, weights, 0)?.sum;
        }
        let norm = gradient_norm(model)?;
        optimizer.update(model, 1, 1e-6, norm)?;
        let seconds = start.elapsed().as_secs_f64();
        ensure!(
            loss.is_finite() && norm.is_finite(),
            "loss {loss}, gradient {norm}"
        );
        self.fastest_s[step] = self.fastest_s[step].min(seconds);
        Ok(())
    }
}

/// The same lengths and targets with ids below [`VOCABULARY`].
fn folded(sequence: &Sequence) -> Result<Sequence> {
    let tokens: Vec<u32> = sequence.tokens().iter().map(|t| t % VOCABULARY).collect();
    let targets = sequence.targets().iter().map(|&target| match target {
        IGNORED => IGNORED.into(),
        id => i64::from(id) % i64::from(VOCABULARY),
    });
    let labels = std::iter::once(IGNORED.into()).chain(targets);
    let labels: Vec<i64> = labels.take(tokens.len()).collect();
    Ok(Sequence::from_labels(tokens, &labels)?)
}

const HIDDEN: usize = 192;

fn architecture() -> Result<ModelConfig> {
    Ok(ModelConfig::from_json(&json!({
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": true,
        "initializer_range": 0.02,
    }))?)
}
