//! What a configuration says about its model: what is trained, and how it is loaded.

use super::{Config, PrecisionChoice};
use tightrope_device::DType;
use tightrope_model::{LoadOptions, Training};

/// Parameters that a configuration trains.
pub fn training(config: &Config) -> Training {
    match &config.lora {
        None => Training::Full,
        Some(lora) => Training::Lora(lora.into()),
    }
}

/// Options for loading the model of a configuration for training, without new tokens.
pub fn load_options(config: &Config, capacity: usize) -> LoadOptions {
    LoadOptions {
        adapter: config.adapter.clone(),
        started: None,
        base: config.base_storage(),
        capacity,
        recompute: config.run.recompute,
        precision: config.precision.dtype(),
        score: config.objective.kind.scores(),
        seed: config.seed,
        new_tokens: Vec::new(),
    }
}

impl PrecisionChoice {
    /// Type of activations; f32 unless the choice says otherwise.
    fn dtype(self) -> DType {
        match self {
            PrecisionChoice::Bf16 => DType::BF16,
            PrecisionChoice::Auto | PrecisionChoice::F32 => DType::F32,
        }
    }
}
