//! Times whole optimizer steps of SmolLM2-135M: LoRA and full fine-tuning, packed and padded, in f32
//! and bf16.

use super::rows::Rows;
use crate::{Flops, Row, Suite, log_normal_lengths, measure_flops, row};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};
use tightrope_data::Progress;
use tightrope_device::{Cpu, Device};
use tightrope_run::{Base, train};
use tightrope_train::{Config, Observer, RunOptions, StepRow, StopFlag, batches::Batches};

pub(crate) const SUITE: Suite = Suite {
    name: "step",
    about: "whole steps of SmolLM2-135M, packs of 1,024 and batches of 8 padded, in f32 and bf16 (packs): \
            real tokens/s; useful \
            operations (of real tokens, attention below the diagonal, nothing computed twice) as a \
            share of the peak of f32 multiply-adds in vectors measured around each step, and of the \
            best step as a share of the best peak; peak memory",
    run,
};

/// File of `cargo xtask fetch smollm2`.
const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
const VOCABULARY: u32 = 49_152;
const LAYERS: f64 = 30.0;
const HIDDEN: f64 = 576.0;
/// Weights of each layer: queries and output, keys and values of 3 heads of 9, gate, up and down.
const LAYER_WEIGHTS: f64 = LAYERS * HIDDEN * (2.0 * 576.0 + 2.0 * 192.0 + 3.0 * 1536.0);
/// Weights of adapters of rank 16 for each of these.
const ADAPTER_WEIGHTS: f64 =
    LAYERS * 16.0 * (2.0 * (576.0 + 576.0) + 2.0 * (576.0 + 192.0) + 3.0 * (576.0 + 1536.0));
const HEAD_WEIGHTS: f64 = HIDDEN * VOCABULARY as f64;
/// The first step is not counted.
const STEPS: usize = 8;
/// Number of rounds: about half a second of multiplications between two steps.
const PEAK_ROUNDS: usize = 2000;

fn run(emit: &mut dyn FnMut(Row)) -> Result<()> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(MODEL);
    ensure!(
        model.exists(),
        "{MODEL} is not there: cargo xtask fetch smollm2"
    );
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data.jsonl");
    write_data(&data)?;
    let cpu = Cpu::new(0)?;
    for (training, sets) in [("lora r 16", vec!["lora.r=16"]), ("full", vec![])] {
        let packed = ["packing.mode=best-fit", "packing.capacity=1024"];
        let padded = ["packing.mode=padded", "batch.sequences_per_step=8"];
        for (batching, more, precision) in [
            ("packed 1024", packed, "f32"),
            ("packed 1024", packed, "bf16"),
            ("padded 8", padded, "f32"),
        ] {
            let output = folder
                .path()
                .join(format!("{training} {batching} {precision}"));
            let precision_is = format!("precision={precision}");
            let sets = [&sets[..], &more[..], &[&precision_is]].concat();
            if cfg!(target_os = "linux") {
                // Resets the peak memory of the process.
                fs::write("/proc/self/clear_refs", "5")?;
            }
            let steps = steps(&model, &data, &cpu, output, &sets)?;
            let of = |value: &dyn Fn(&Step) -> f64| {
                let mut values: Vec<f64> = steps.iter().map(value).collect();
                values.sort_by(f64::total_cmp);
                (values[values.len() / 2], values[values.len() - 1])
            };
            let rate =
                |s: &Step| operations(s, training) * s.row.tokens_per_second / s.row.tokens as f64;
            let (median, best) = of(&|s| s.row.tokens_per_second);
            let (share, _) = of(&|s| rate(s) / s.mean_flops);
            let best_share = of(&rate).1 / of(&|s| s.best_flops).1;
            let sum =
                |value: &dyn Fn(&StepRow) -> u64| steps.iter().map(|s| value(&s.row)).sum::<u64>();
            emit(row([
                ("training", training.into()),
                ("batching", batching.into()),
                ("precision", precision.into()),
                ("device", cpu.name().into()),
                ("tokens_per_second", median.into()),
                ("best_tokens_per_second", best.into()),
                ("share_of_peak", share.into()),
                ("best_share_of_peak", best_share.into()),
                ("tokens", sum(&|s| s.tokens).into()),
                ("padding_tokens", sum(&|s| s.padding_tokens).into()),
                (
                    "peak_memory_bytes",
                    json!(steps.last().map(|s| s.row.peak_memory_bytes)),
                ),
            ]));
        }
    }
    Ok(())
}

/// Operations of a step: two for each weight and token in the forward pass, two for the gradient of
/// the input, and two for the gradient of a trained weight; the head counts only for trained
/// tokens. Attention has two products forward and four backward, over the lower half of `length²`
/// pairs.
fn operations(step: &Step, training: &str) -> f64 {
    let (frozen, trained) = (2.0 * 2.0, 3.0 * 2.0);
    let (of_weights, of_adapter) = match training {
        "full" => (trained, 0.0),
        _ => (frozen, trained),
    };
    let (tokens, with_target) = (step.row.tokens as f64, step.row.trained_tokens as f64);
    let attention = 6.0 * 2.0 * LAYERS * HIDDEN * step.squares / 2.0;
    attention
        + of_weights * (LAYER_WEIGHTS * tokens + HEAD_WEIGHTS * with_target)
        + of_adapter * ADAPTER_WEIGHTS * tokens
}

/// Writes sequences with the lengths of instruction data, up to 1,024 tokens, all trained.
fn write_data(path: &Path) -> Result<()> {
    let lengths = log_normal_lengths(200, 180.0, 0.6, 1024, 1);
    let row = |(index, length): (usize, u32)| {
        let ids: Vec<u32> = (0..length)
            .map(|position| (index as u32 * 7919 + position * 104_729) % VOCABULARY)
            .collect();
        json!({ "input_ids": ids }).to_string() + "\n"
    };
    let text: String = lengths.into_iter().enumerate().map(row).collect();
    fs::write(path, text).context("writing the data")
}

/// One step, with the rates of the processor directly before and after it.
struct Step {
    row: StepRow,
    /// `Σ length²` over the sequences of the step.
    squares: f64,
    mean_flops: f64,
    best_flops: f64,
}

/// Measures the processor after each step, outside the time of the steps.
struct Beside<'a> {
    cpu: &'a Cpu,
    rows: Mutex<Vec<(StepRow, Flops)>>,
}

impl Progress for Beside<'_> {}

impl Observer for Beside<'_> {
    fn stepped(&self, row: &StepRow) {
        let flops = measure_flops(self.cpu, PEAK_ROUNDS);
        if let Ok(mut rows) = self.rows.lock() {
            rows.push((row.clone(), flops));
        }
    }
}

/// Runs a short training; returns its steps after the first.
fn steps(
    model: &Path,
    data: &Path,
    cpu: &Cpu,
    output: PathBuf,
    sets: &[&str],
) -> Result<Vec<Step>> {
    let text = |path: &Path| json!(path).to_string();
    let mut all = vec![
        format!("model={}", text(model)),
        format!("output={}", text(&output)),
        format!("data.train=[{}]", text(data)),
        "data.format=tokens".to_owned(),
        "data.max_length=1024".to_owned(),
        format!("run.max_steps={}", 1 + STEPS),
    ];
    all.extend(sets.iter().map(|set| (*set).to_owned()));
    let config = Config::parse("", Path::new("bench.toml"), &all)?;
    let base = Base::open(&config.model, &Rows::default())?;
    let (sequences, _) = base.load_both(&config, &Rows::default())?;
    let sequences = &sequences.sequences;
    let mut batches = Batches::new(&config, sequences, base.padding_token())?;
    let mut squares = |step: u64| -> Result<f64> {
        let passes = batches.step(step)?;
        Ok(passes
            .iter()
            .map(|b| b.segments().attention_cost() as f64)
            .sum())
    };
    let beside = Beside {
        cpu,
        rows: Mutex::default(),
    };
    train(
        &config,
        &RunOptions::default(),
        &StopFlag::default(),
        &beside,
    )?;
    let rows = beside.rows.into_inner().context("a step panicked")?;
    ensure!(rows.len() == 1 + STEPS, "{} steps", rows.len());
    for (row, _) in &rows {
        ensure!(row.loss.is_finite() && row.grad_norm.is_finite(), "{row:?}");
    }
    let step = |pair: &[(StepRow, Flops)]| {
        let (before, (row, after)) = (pair[0].1, &pair[1]);
        Ok(Step {
            row: row.clone(),
            squares: squares(row.step)?,
            mean_flops: (before.mean + after.mean) / 2.0,
            best_flops: before.best.max(after.best),
        })
    };
    rows.windows(2).map(step).collect()
}
