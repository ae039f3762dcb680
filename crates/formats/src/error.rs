//! Errors of files: every error names the file, and the tensor if there is one.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The system refuses access.
    #[error("{path}: cannot be read or written")]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A folder holds no readable tensors.
    #[error("{path}: {reason}")]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// What was looked for, and what the folder holds.
        reason: String,
    },
    /// A file is not valid JSON.
    #[error("{file}: is not valid JSON")]
    Json {
        /// The file.
        file: PathBuf,
        /// Place and reason.
        source: serde_json::Error,
    },
    /// A metadata entry cannot be used.
    #[error("{file}: `{key}`: {reason}")]
    Metadata {
        /// The file.
        file: PathBuf,
        /// Key of the entry.
        key: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// A file ends before what its header describes.
    #[error(
        "{file}: has {length} bytes, but its header describes {expected}: it is cut short; download or \
         copy it again"
    )]
    Cut {
        /// The file.
        file: PathBuf,
        /// Length of the file in bytes.
        length: u64,
        /// Length that the header describes, in bytes.
        expected: u64,
    },
    /// An index names a file that does not exist.
    #[error("{index}: names {file}, which is not in this folder: download or copy it too")]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// Name of the file.
        file: String,
    },
    /// The file as a whole is damaged.
    #[error("{file}: {reason}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The description of a tensor is damaged.
    #[error("{file}: tensor `{tensor}`: {reason}")]
    DamagedTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A name of a tensor appears twice.
    #[error("{file}: tensor `{tensor}` appears twice")]
    Duplicate {
        /// File with the second occurrence.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has a type that cannot be used.
    #[error("{file}: tensor `{tensor}` holds {dtype}, expected {expected}")]
    TensorDType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Name of the type in the file.
        dtype: String,
        /// Types that can be used.
        expected: &'static str,
    },
    /// A tensor is missing.
    #[error("{file}: tensor `{tensor}` is missing")]
    Missing {
        /// The file or index.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

impl FormatError {
    /// Makes a function for `map_err` at every access of `path`.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
