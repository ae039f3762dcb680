//! Compares optimizers and the storage of their state: time of an update and bytes, for all weights
//! and for an adapter of SmolLM2-135M.

use crate::{Row, Suite, row, time};
use anyhow::{Result, ensure};
use serde_json::json;
use std::path::Path;
use tightrope_device::Cpu;
use tightrope_model::{ModelConfig, TokenWeights, TrainableModel};
use tightrope_packing::{Batch, Piece, Sequence};
use tightrope_train::{Config, Optimizer, gradient_norm, load_options, training};

pub(crate) const SUITE: Suite = Suite {
    name: "optimizer",
    about: "time of an update on the processor and bytes of the state for each optimizer: all weights \
            and an adapter of rank 16 of a random model with the shapes of SmolLM2-135M",
    run,
};

const VOCABULARY: u32 = 49_152;
const TOKENS: u32 = 64;
const REPETITIONS: usize = 7;

/// Kinds with their storage.
const KINDS: [(&str, &str); 8] = [
    ("adamw", "f32"),
    ("adamw", "bf16"),
    ("adamw", "8bit"),
    ("lion", "f32"),
    ("lion", "bf16"),
    ("schedule-free", "f32"),
    ("adafactor", "f32"),
    ("muon", "f32"),
];

fn run(emit: &mut dyn FnMut(Row)) -> Result<()> {
    let device = Cpu::new(0)?;
    let ids: Vec<u32> = (0..TOKENS).map(|i| i * 7919 % VOCABULARY).collect();
    let labels: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
    let sequence = Sequence::from_labels(ids, &labels)?;
    let piece = Piece {
        sequence: 0,
        start: 0,
        length: TOKENS,
    };
    let batch = Batch::packed(&[sequence], &[piece])?;
    let weights = vec![1.0 / batch.trained_tokens() as f32; batch.len()];
    for (trained, adapter) in [("all weights", None), ("lora, rank 16", Some("lora.r=16"))] {
        for (kind, state) in KINDS {
            let sets = [
                "model=random".to_owned(),
                format!("optimizer.kind={kind}"),
                format!("optimizer.state={state}"),
            ];
            let sets: Vec<String> = sets.into_iter().chain(adapter.map(str::to_owned)).collect();
            let config = Config::parse("", Path::new("bench.toml"), &sets)?;
            let options = load_options(&config, TOKENS as usize);
            let training = training(&config);
            let mut model = TrainableModel::random(&device, architecture()?, &training, &options)?;
            let mut optimizer = Optimizer::new(&mut model, &config.optimizer, 1.0)?;
            let plan = optimizer.plan()?;
            let parameters: usize = model.parameters().iter().map(|p| p.weight.len()).sum();

            model.forward_backward(&batch, TokenWeights::Known(&weights), 0)?;
            let norm = gradient_norm(&mut model)?;
            ensure!(norm.is_finite() && norm > 0.0, "a gradient of norm {norm}");
            let mut failed = None;
            let mut step = 0;
            let update = time(REPETITIONS, || {
                step += 1;
                if let Err(error) = optimizer.update(&mut model, step, 1e-6, norm) {
                    failed.get_or_insert(error);
                }
            });
            if let Some(error) = failed {
                return Err(error.into());
            }
            let bytes: u64 = plan.iter().map(|p| p.bytes).sum();
            emit(row([
                ("trained", trained.into()),
                ("kind", kind.into()),
                ("state", state.into()),
                ("threads", device.threads().into()),
                ("parameters", parameters.into()),
                ("bytes", bytes.into()),
                (
                    "bytes_per_parameter",
                    (bytes as f64 / parameters as f64).into(),
                ),
                ("update_min_s", update.min_s.into()),
                ("update_median_s", update.median_s.into()),
            ]));
        }
    }
    Ok(())
}

fn architecture() -> Result<ModelConfig> {
    Ok(ModelConfig::from_json(&json!({
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": true,
        "initializer_range": 0.02,
    }))?)
}
