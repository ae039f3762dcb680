//! Llama-family models: configuration, weights, LoRA, forward and hand-written backward.
//!
//! A model is read from files, laid out once for a capacity of tokens ([`Plan`]), and then only
//! computes: [`Model::forward_backward`] adds into the gradients that [`Model::parameters`] hands
//! to an optimizer. Nothing here knows which device it runs on.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod activations;
mod architecture;
mod backward;
mod cache;
mod checkpoint;
mod config;
mod error;
mod export;
mod family;
mod forward;
mod generate;
mod load;
mod lora;
mod loss;
mod model;
mod options;
mod parameter;
mod pass;
mod plan;
mod random;
mod settings;
mod weights;

pub use architecture::Architecture;
pub use cache::KvCache;
pub use checkpoint::{GgufTokenizerData, GgufValue};
pub use config::ModelConfig;
pub use error::{ConfigError, ModelError};
pub use loss::Loss;
pub use model::Model;
pub use options::{BaseStorage, LoadOptions, LoraConfig, TargetModules, Training};
pub use parameter::{ParameterKind, ParameterMut};
pub use plan::{Plan, PlannedBuffer, Purpose};

use std::path::Path;
use tightrope_kernels::Kernels;
use tightrope_rope::Rope;

/// A device that has every operation that a model needs.
pub trait Backend: Kernels + Rope {}

impl<D: Kernels + Rope> Backend for D {}

/// The contents of a JSON file.
fn read_json(file: &Path) -> Result<serde_json::Value, ModelError> {
    let text = std::fs::read_to_string(file).map_err(ModelError::io(file))?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json {
        file: file.to_path_buf(),
        source,
    })
}
