//! What can go wrong with frequencies and tables.

/// Errors of rotary embeddings; each carries the values that disagreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RopeError {
    /// A table is shorter than what is to be written to it.
    #[error("`{operand}`: needs {needed} elements, has {got}")]
    TooShort {
        /// Name of the argument.
        operand: &'static str,
        /// Elements that the segments have.
        needed: usize,
        /// Elements that it has.
        got: usize,
    },
    /// A number has a value without a meaning.
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
}

impl RopeError {
    pub(crate) fn json(key: &str, expected: &'static str, got: &serde_json::Value) -> Self {
        // Hostile files may hold anything of any size.
        let got = got.to_string().chars().take(60).collect();
        let key = key.chars().take(60).collect();
        Self::Json { key, expected, got }
    }
}
