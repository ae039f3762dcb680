//! Llama-family models: configuration, weights, LoRA, forward and hand-written backward.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod loss;
mod options;
mod parameter;

pub use error::{ConfigError, ModelError};
pub use loss::Loss;
pub use options::{LoadOptions, LoraConfig, TargetModules, Training};
pub use parameter::{ParameterKind, ParameterMut};
