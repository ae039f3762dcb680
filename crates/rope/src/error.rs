//! What can go wrong with rotations and their frequencies.

use tightrope_device::{DType, DeviceError};

/// Errors of rotary embeddings; each carries the values that disagreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RopeError {
    /// A buffer is shorter than what is to be read from or written to it.
    #[error("`{operand}`: needs {needed} elements, has {got}")]
    TooShort {
        /// Name of the argument.
        operand: &'static str,
        /// Elements that the rotation touches.
        needed: usize,
        /// Elements that it has.
        got: usize,
    },
    /// An argument has an element type that the rotation does not take there.
    #[error("`{operand}`: expected {expected}, got {got}")]
    DType {
        /// Name of the argument.
        operand: &'static str,
        /// What it takes.
        expected: &'static str,
        /// Its type.
        got: DType,
    },
    /// The offsets need 64 bits, and 32 were asked for.
    #[error("offsets of this rotation do not fit 32 bits")]
    TooNarrow,
    /// A number has a value for which the rotation has no meaning.
    #[error("`{name}` is {value}: {rule}")]
    Value {
        /// Name of the parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// A configuration lacks a key that its scaling needs.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value of a configuration is of another kind.
    #[error("`{key}`: expected {expected}, got {got}")]
    Json {
        /// The key.
        key: String,
        /// What is meant to stand there.
        expected: &'static str,
        /// What stands there, shortened.
        got: String,
    },
    /// A configuration names a scaling that does not exist here.
    #[error("`rope_type` is `{name}`: known are default, linear, dynamic, yarn, llama3, longrope")]
    UnknownScaling {
        /// The name.
        name: String,
    },
    /// A scaling has another number of factors than there are frequencies.
    #[error("`{name}` has {got} numbers, needs {needed}: one for each frequency")]
    Factors {
        /// Name of the list.
        name: &'static str,
        /// Frequencies.
        needed: usize,
        /// Numbers that it has.
        got: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl RopeError {
    pub(crate) fn json(key: &str, expected: &'static str, got: &serde_json::Value) -> Self {
        // Hostile files may hold anything of any size.
        let got = got.to_string().chars().take(60).collect();
        let key = key.chars().take(60).collect();
        Self::Json { key, expected, got }
    }
}
