//! Named tensors of one or several files, whatever their format.

use crate::{Encoding, FormatError, diagnosis, gguf::Gguf, safetensors};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Place and kind of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// File that holds the tensor.
    pub file: Arc<Path>,
    /// Encoding of its elements.
    pub encoding: Encoding,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Offset of the first byte in the file.
    pub start: u64,
    /// Size in bytes.
    pub bytes: usize,
}

/// The tensors of one or several files. Headers have been read and checked against the sizes of the
/// files; the elements of a tensor are read on demand.
///
/// Files are not mapped: truncating a mapped file under its reader kills the process.
#[derive(Clone, Debug)]
pub struct Tensors {
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Tensors {
    /// Opens a `.safetensors` or `.gguf` file, the shards that an `.index.json` names, or a folder with
    /// `model.safetensors` or `model.safetensors.index.json`.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        if !path.is_dir() {
            return match path.extension().and_then(|extension| extension.to_str()) {
                Some("gguf") => Ok(Gguf::open(path)?.tensors),
                Some("json") => safetensors::open_sharded(path),
                _ => safetensors::open(path),
            };
        }
        let (whole, index) = (path.join(safetensors::WHOLE), path.join(safetensors::INDEX));
        if whole.is_file() {
            safetensors::open(&whole)
        } else if index.is_file() {
            safetensors::open_sharded(&index)
        } else {
            let wanted = "has neither model.safetensors nor model.safetensors.index.json";
            Err(diagnosis::of_model(path, wanted))
        }
    }

    /// A set of tensors; `path` is the opened file or index.
    pub(crate) fn new(path: &Path, tensors: BTreeMap<String, TensorInfo>) -> Self {
        let path = path.to_path_buf();
        Self { path, tensors }
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Place and kind of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// File that holds a tensor; for a missing tensor, the opened file or index.
    pub fn file(&self, name: &str) -> &Path {
        self.info(name).map_or(&self.path, |tensor| &tensor.file)
    }

    /// Bytes of a tensor as stored: row-major and little-endian.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, FormatError> {
        let tensor = self.info(name).ok_or_else(|| self.missing(name))?;
        let io = || FormatError::io(&tensor.file);
        let mut file = File::open(&tensor.file).map_err(io())?;
        file.seek(SeekFrom::Start(tensor.start)).map_err(io())?;
        // The header was checked against the length of the file, so this is never larger than the
        // file.
        let mut bytes = vec![0; tensor.bytes];
        file.read_exact(&mut bytes).map_err(io())?;
        Ok(bytes)
    }

    /// Elements of a tensor as f32; see [`Encoding::to_f32`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, FormatError> {
        let tensor = self.info(name).ok_or_else(|| self.missing(name))?;
        let elements = tensor.encoding.to_f32(&self.read(name)?);
        elements.ok_or_else(|| FormatError::TensorDType {
            file: tensor.file.to_path_buf(),
            tensor: name.to_string(),
            dtype: tensor.encoding.name().to_string(),
            expected: "floating-point numbers of at least 16 bits, or blocks of GGUF",
        })
    }

    /// Gives a tensor another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(tensor) = self.tensors.remove(from) {
            self.tensors.insert(to.to_string(), tensor);
        }
    }

    /// Error about a missing tensor.
    pub fn missing(&self, name: &str) -> FormatError {
        FormatError::Missing {
            file: self.file(name).to_path_buf(),
            tensor: name.to_string(),
        }
    }
}
