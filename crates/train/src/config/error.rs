//! Errors of configurations.

use super::Place;
use std::{io, path::PathBuf};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file or folder of another kind was given in place of a configuration.
    #[error("{}: a configuration (TOML) is needed, and {what}", path.display())]
    OtherKind {
        /// Path of the file or folder.
        path: PathBuf,
        /// Kind of the file or folder, and where it belongs.
        what: &'static str,
    },
    /// The text is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Place of the error.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A key does not exist.
    #[error("{place}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// Place of the key.
        place: Place,
        /// The key.
        key: String,
        /// Suggestion for the intended key.
        hint: String,
    },
    /// A value has the wrong type or is out of range.
    #[error("{place}: `{key}` must be {expected}, got {got}")]
    WrongType {
        /// Place of the value.
        place: Place,
        /// The key.
        key: String,
        /// Expected values.
        expected: String,
        /// The given value.
        got: String,
    },
    /// A required key is missing.
    #[error("{}: `{key}` is missing: {help}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Purpose of the key.
        help: &'static str,
    },
    /// Values contradict each other, or one has no meaning here.
    #[error("{place}: {message}")]
    Conflict {
        /// Place of one of them.
        place: Place,
        /// What to do.
        message: String,
    },
    /// A `--set` has no `=`.
    #[error("--set {text}: write it as key=value, such as optimizer.learning_rate=1e-4")]
    Set {
        /// The given text.
        text: String,
    },
}
