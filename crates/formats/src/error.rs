//! What can be wrong with a file: every error names it, and the tensor if it is about one.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The system refuses.
    #[error("{path}: cannot be read or written")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder holds no tensors that can be read.
    #[error("{path}: {reason}")]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// What was looked for, and what is there.
        reason: String,
    },
    /// A file is not valid JSON.
    #[error("{file}: is not valid JSON")]
    Json {
        /// The file.
        file: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Metadata cannot be used.
    #[error("{file}: `{key}`: {reason}")]
    Metadata {
        /// The file.
        file: PathBuf,
        /// Its key.
        key: String,
        /// What is wrong with it.
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
        /// Its bytes.
        length: u64,
        /// Bytes that it should have.
        expected: u64,
    },
    /// An index names a file that is not there.
    #[error("{index}: names {file}, which is not in this folder: download or copy it too")]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The file's name.
        file: String,
    },
    /// A file is damaged as a whole.
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
    /// A name appears twice.
    #[error("{file}: tensor `{tensor}` appears twice")]
    Duplicate {
        /// The file with the second.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor holds a type that cannot be used.
    #[error("{file}: tensor `{tensor}` holds {dtype}, expected {expected}")]
    TensorDType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type, as the file names it.
        dtype: String,
        /// What can be used.
        expected: &'static str,
    },
    /// A tensor is not there.
    #[error("{file}: tensor `{tensor}` is missing")]
    Missing {
        /// The file or index.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

impl FormatError {
    /// For `map_err` at every access of `path`.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
