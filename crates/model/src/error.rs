//! Errors of models: files or batches that do not fit.

use std::path::{Path, PathBuf};
use tightrope_device::{DType, DeviceError};
use tightrope_formats::FormatError;
use tightrope_kernels::KernelError;
use tightrope_rope::RopeError;

/// A setting of a configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {reason}")]
pub struct ConfigError {
    /// Path of the key, as in `rope_scaling.factor`.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ConfigError {
    /// An error about `key`.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

/// Errors of models; each names the file and tensor, or carries the values that disagreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A setting cannot be used.
    #[error("{file}: {error}")]
    Config {
        /// The file.
        file: PathBuf,
        /// The setting and the reason.
        error: ConfigError,
    },
    /// A setting of a configuration that is in no file cannot be used.
    #[error(transparent)]
    Setting(ConfigError),
    /// An adapter started from other values than those that the model's weights give here.
    #[error(
        "{file}: tensor `{tensor}` started from other values than these weights give on this \
         processor; a run that started from the weights goes on only with the same weights, \
         settings and kind of processor"
    )]
    OtherStart {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A setting of a new adapter cannot be used.
    #[error("`lora.{}`: {}", .0.key, .0.reason)]
    Lora(ConfigError),
    /// A quantised tensor is of a kind that cannot be loaded, or does not fit its scales.
    #[error("{file}: tensor `{tensor}`: {reason}")]
    Quantization {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is not supported.
        reason: String,
    },
    /// The file has a tensor that the model lacks.
    #[error("{file}: tensor `{tensor}` does not belong to this model")]
    Unexpected {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration requires.
    #[error("{file}: tensor `{tensor}`: expected {expected:?}, got {got:?}")]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape of the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// There are more tokens than the buffers were laid out for.
    #[error("{tokens} tokens do not fit the capacity of {capacity}")]
    Capacity {
        /// Number of tokens of the batch, or of the cache after the call.
        tokens: usize,
        /// Number of rows laid out.
        capacity: usize,
    },
    /// A token id lies outside the embedding.
    #[error("token {index} has id {id}, but the embedding has {vocabulary} rows")]
    Token {
        /// Index of the token.
        index: usize,
        /// The id.
        id: i64,
        /// Number of rows of the embedding.
        vocabulary: usize,
    },
    /// A sequence with a shared beginning would be rotated by other angles with a copy of its own.
    #[error(
        "a sequence of {length} tokens shares its first {prefix} with others, but the rotary \
         frequencies of this model depend on the length of the sequence beyond {fixed} tokens; \
         do not share beginnings of longer sequences"
    )]
    Prefix {
        /// Number of tokens that are shared.
        prefix: u64,
        /// Number of tokens of the sequence.
        length: u64,
        /// Number of positions up to which frequencies do not depend on the length.
        fixed: u64,
    },
    /// A weight would be infinite in the requested type.
    #[error(
        "`{tensor}` has weights that are too large for {}; use another type, such as bf16",
        dtype.name()
    )]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// The type.
        dtype: DType,
    },
    /// GGUF files, or llama.cpp, cannot hold the model or its adapter.
    #[error("a GGUF file cannot hold {what}: {reason}")]
    NotInGguf {
        /// What cannot be held.
        what: String,
        /// The reason.
        reason: String,
    },
    /// The model was loaded for another purpose than the requested one.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A layer has a part for which no buffer was laid out; input never causes this.
    #[error(
        "no buffer was laid out for {0} of a layer; this is a fault of the program: please report it"
    )]
    NoBuffer(&'static str),
    /// The number of weights is not the number of tokens of a batch.
    #[error("{weights} weights for {tokens} tokens")]
    Weights {
        /// Number of weights.
        weights: usize,
        /// Number of tokens in the batch.
        tokens: usize,
    },
    /// The layout of a model differs from its plan.
    #[error(
        "the model's layout differs from the plan of its memory; this is a fault of the program: please report it"
    )]
    NotAsPlanned,
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A rotation failed.
    #[error(transparent)]
    Rope(#[from] RopeError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl ModelError {
    /// Makes a function for `map_err` if a configuration comes from `file`.
    pub(crate) fn config(file: &Path) -> impl FnOnce(ConfigError) -> Self {
        let file = file.to_path_buf();
        move |error| Self::Config { file, error }
    }
}
