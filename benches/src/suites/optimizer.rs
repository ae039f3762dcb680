//! Compares moments in f32 with moments in 8 bits: the update alone, whole steps, and the size of
//! the state.

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
    about: "time of an update and of a whole step on the processor, and bytes of the moments: every \
            parameter of a Llama of 10 million trained, 256 tokens a step",
    run,
};

const VOCABULARY: u32 = 8192;
const TOKENS: u32 = 256;
const REPETITIONS: usize = 15;

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
    for state in ["f32", "8bit"] {
        let sets = [
            "model=random".to_owned(),
            format!("optimizer.state={state}"),
        ];
        let config = Config::parse("", Path::new("bench.toml"), &sets)?;
        let options = load_options(&config, TOKENS as usize);
        let training = training(&config);
        let mut model = TrainableModel::random(&device, architecture()?, &training, &options)?;
        let mut optimizer = Optimizer::new(&mut model, &config.optimizer, 1.0)?;
        let plan = optimizer.plan()?;
        let parameters: usize = model.parameters().iter().map(|p| p.weight.len()).sum();

        let mut step = || -> Result<f64> {
            model.zero_gradients()?;
            model.forward_backward(&batch, TokenWeights::Known(&weights), 0)?;
            let norm = gradient_norm(&mut model)?;
            optimizer.update(&mut model, 1, 1e-6, norm)?;
            Ok(norm)
        };
        let norm = step()?;
        ensure!(norm.is_finite() && norm > 0.0, "a gradient of norm {norm}");
        let mut failed = None;
        let whole = time(REPETITIONS, || {
            if let Err(error) = step() {
                failed.get_or_insert(error);
            }
        });
        let update = time(REPETITIONS, || {
            if let Err(error) = optimizer.update(&mut model, 2, 1e-6, norm) {
                failed.get_or_insert(error.into());
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        emit(row([
            ("state", state.into()),
            ("threads", device.threads().into()),
            ("parameters", parameters.into()),
            ("bytes", plan.iter().map(|p| p.bytes).sum::<u64>().into()),
            ("update_min_s", update.min_s.into()),
            ("update_median_s", update.median_s.into()),
            (
                "update_parameters_per_s",
                (parameters as f64 / update.min_s).into(),
            ),
            ("step_min_s", whole.min_s.into()),
            ("step_median_s", whole.median_s.into()),
        ]));
    }
    Ok(())
}

fn architecture() -> Result<ModelConfig> {
    Ok(ModelConfig::from_json(&json!({
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": true,
        "initializer_range": 0.02,
    }))?)
}
