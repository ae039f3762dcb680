//! Errors of frequencies and tables.

/// Errors of rotary embeddings; each carries the values that disagreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RopeError {
    /// A table is too short for the segments.
    #[error("`{operand}`: needs {needed} elements, has {got}")]
    TooShort {
        /// Name of the argument.
        operand: &'static str,
        /// Number of elements that the segments need.
        needed: usize,
        /// Number of elements of the table.
        got: usize,
    },
    /// A number has a value without meaning.
    #[error("`{name}` is {value}: {rule}")]
    Value {
        /// Name of the parameter.
        name: &'static str,
        /// The given value.
        value: f64,
        /// Rule that the value must obey.
        rule: &'static str,
    },
    /// A configuration lacks a key that its scaling needs.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value of a configuration has another type than expected.
    #[error("`{key}`: expected {expected}, got {got}")]
    Json {
        /// The key.
        key: String,
        /// The expected type.
        expected: &'static str,
        /// The given value, shortened.
        got: String,
    },
    /// A configuration names an unknown scaling.
    #[error("`rope_type` is `{name}`: known are default, linear, dynamic, yarn, llama3, longrope")]
    UnknownScaling {
        /// The name.
        name: String,
    },
    /// The number of factors of a scaling is not the number of frequencies.
    #[error("`{name}` has {got} numbers, needs {needed}: one for each frequency")]
    Factors {
        /// Name of the list.
        name: &'static str,
        /// Number of frequencies.
        needed: usize,
        /// Number of factors.
        got: usize,
    },
}

impl RopeError {
    pub(crate) fn json(key: &str, expected: &'static str, got: &serde_json::Value) -> Self {
        // A hostile file may hold a value of any size.
        let got = got.to_string().chars().take(60).collect();
        let key = key.chars().take(60).collect();
        Self::Json { key, expected, got }
    }
}
