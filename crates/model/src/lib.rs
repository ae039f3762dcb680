//! Llama-family models: configuration, weights, LoRA, forward and hand-written backward.
#![doc = include_str!("../README.md")]
//!
//! A model is read from files and laid out once for a capacity of tokens ([`Plan`]); after that it
//! only computes. [`TrainableModel::forward_backward`] adds into the gradients that
//! [`TrainableModel::parameters`] gives to an optimizer. No code here depends on the device.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod activations;
mod adapter;
mod architecture;
mod cache;
mod checkpoint;
mod config;
mod error;
mod export;
mod family;
mod finite;
mod generate;
mod load;
mod lora;
mod loss;
mod model;
mod options;
mod parameter;
mod parts;
mod pass;
mod plan;
mod random;
mod settings;
mod vocabulary;
mod weights;

pub use architecture::{Architecture, HeadKind, NormPlaces, QueryNorms};
pub use cache::KvCache;
pub use checkpoint::{Fallback, GgufSummary};
pub use config::ModelConfig;
pub use error::{ConfigError, ModelError};
pub use lora::{Combination, combine_adapters};
pub use loss::Loss;
pub use model::{Model, TokenWeights, TrainableModel};
pub use options::{
    BaseStorage, InitialFactors, LoadOptions, LoraConfig, ModuleNames, NewToken, TargetModules,
    TokenIndices, TrainedBiases, Training,
};
pub use parameter::{ParameterKind, ParameterMut};
pub use pass::Adapters;
pub use plan::{Plan, PlannedBuffer, Purpose};

use std::{io::Read, path::Path};
use tightrope_formats::{FormatError, diagnosis};

/// A device with every operation that a model needs.
pub use tightrope_kernels::Kernels as Backend;

/// Larger configurations are refused, because in memory they take up to forty times their size.
const LARGEST_CONFIG: u64 = 4 << 20;

/// Reads the JSON file of a configuration.
fn read_json(file: &Path) -> Result<serde_json::Value, FormatError> {
    let mut text = Vec::new();
    let open = std::fs::File::open(file).map_err(FormatError::io(file))?;
    let mut start = open.take(LARGEST_CONFIG + 1);
    start
        .read_to_end(&mut text)
        .map_err(FormatError::io(file))?;
    if text.len() as u64 > LARGEST_CONFIG {
        return Err(FormatError::Damaged {
            file: file.to_path_buf(),
            reason: format!("is larger than any configuration: {LARGEST_CONFIG} bytes"),
        });
    }
    serde_json::from_slice(&text).map_err(|source| {
        let json = || FormatError::Json {
            file: file.to_path_buf(),
            source,
        };
        diagnosis::of(file).unwrap_or_else(json)
    })
}
