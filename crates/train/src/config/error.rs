//! Why a configuration cannot be used.

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
        /// Why.
        source: io::Error,
    },
    /// A file or folder of another kind, where the configuration should be.
    #[error("{}: a configuration (TOML) is needed, and {what}", path.display())]
    OtherKind {
        /// What was given.
        path: PathBuf,
        /// What it is instead, and where that belongs.
        what: &'static str,
    },
    /// Not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{place}: `{key}` must be {expected}, got {got}")]
    WrongType {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What is expected.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// A key without which nothing can be done.
    #[error("{}: `{key}` is missing: {help}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it is for.
        help: &'static str,
    },
    /// Values that contradict each other.
    #[error("{place}: {message}")]
    Conflict {
        /// Where one of them stands.
        place: Place,
        /// What to do.
        message: String,
    },
    /// `--set` without `=`.
    #[error("--set {text}: write it as key=value, such as optimizer.learning_rate=1e-4")]
    Set {
        /// What was written.
        text: String,
    },
}
