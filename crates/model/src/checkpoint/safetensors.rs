//! Reads safetensors: one file, or several with an index.
//!
//! The header is checked here rather than by the `safetensors` crate, which accepts a name twice
//! (the last wins) and shapes whose product overflows. Files are read, not mapped: truncating a
//! mapped file under its reader kills the process.

use super::{Checkpoint, FLOATS, Stored, TensorInfo};
use crate::{ModelError, weights::HostScales};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tightrope_device::DType;

/// Larger headers are refused, as by the reference implementation.
const LARGEST_HEADER: u64 = 100_000_000;

/// What elements tensors may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elements {
    /// F32, BF16 and F16.
    Floats,
    /// These and U8, which only [`Safetensors::raw`] and [`Safetensors::bytes`] know of.
    FloatsAndBytes,
}

/// Tensors of one or several files.
#[derive(Debug)]
pub(crate) struct Safetensors {
    /// What was opened: the file, or the index.
    path: PathBuf,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: PathBuf,
    dtype: DType,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

impl Safetensors {
    /// One file.
    pub fn open(path: &Path, elements: Elements) -> Result<Self, ModelError> {
        Ok(Self {
            path: path.to_path_buf(),
            tensors: read_header(path, elements)?.into_iter().collect(),
        })
    }

    /// The files that an index (`model.safetensors.index.json`) names, in the same folder.
    pub fn open_sharded(index: &Path, elements: Elements) -> Result<Self, ModelError> {
        let damaged = |reason: String| ModelError::Damaged {
            file: index.to_path_buf(),
            reason,
        };
        let text = std::fs::read_to_string(index).map_err(ModelError::io(index))?;
        let parsed: Index = serde_json::from_str(&text).map_err(|source| ModelError::Json {
            file: index.to_path_buf(),
            source,
        })?;
        let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, file) in parsed.weight_map.0 {
            let Value::String(file) = file else {
                return Err(damaged(format!("`{tensor}` names no file: {file}")));
            };
            files.entry(file).or_default().push(tensor);
        }
        let folder = index.parent().unwrap_or(Path::new(""));
        let mut tensors = BTreeMap::new();
        for (file, named) in files {
            // Only names, so that nothing outside the folder is ever opened.
            if Path::new(&file).file_name() != Some(file.as_ref()) {
                return Err(damaged(format!(
                    "`{file}` is not the name of a file in this folder"
                )));
            }
            let path = folder.join(&file);
            let found = read_header(&path, elements)?;
            for tensor in named {
                if !found.iter().any(|(name, _)| *name == tensor) {
                    return Err(ModelError::Missing { file: path, tensor });
                }
            }
            for (name, entry) in found {
                if let Some(before) = tensors.insert(name.clone(), entry) {
                    return Err(ModelError::Duplicate {
                        file: before.file,
                        tensor: name,
                    });
                }
            }
        }
        Ok(Self {
            path: index.to_path_buf(),
            tensors,
        })
    }

    /// Type and shape of a tensor.
    pub fn raw(&self, name: &str) -> Option<(DType, &[usize])> {
        let entry = self.tensors.get(name)?;
        Some((entry.dtype, &entry.shape))
    }

    /// The bytes of a tensor.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, ModelError> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(super::missing(self, name));
        };
        let io = || ModelError::io(&entry.file);
        let mut file = File::open(&entry.file).map_err(io())?;
        file.seek(SeekFrom::Start(entry.start)).map_err(io())?;
        let mut bytes = vec![0; entry.bytes];
        file.read_exact(&mut bytes).map_err(io())?;
        Ok(bytes)
    }
}

impl Checkpoint for Safetensors {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|entry| TensorInfo {
            stored: Stored::Float(entry.dtype),
            shape: entry.shape.clone(),
        })
    }

    fn file(&self, name: &str) -> &Path {
        self.tensors
            .get(name)
            .map_or(&self.path, |entry| &entry.file)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ModelError> {
        self.bytes(name)
    }

    fn read_nf4(&self, _: &str) -> Result<Option<(Vec<u8>, HostScales)>, ModelError> {
        Ok(None)
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: Unique,
}

/// An object in the order of the file, in which no key appears twice.
struct Unique(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<S: Deserializer<'de>>(deserializer: S) -> Result<Self, S::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Unique, M::Error> {
                let mut entries = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if !seen.insert(key.clone()) {
                        let message = format!("tensor `{key}` appears twice");
                        return Err(serde::de::Error::custom(message));
                    }
                    entries.push((key, value));
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The tensors of a file. They must lie side by side and end where the file ends.
fn read_header(path: &Path, elements: Elements) -> Result<Vec<(String, Entry)>, ModelError> {
    let damaged = |reason: String| ModelError::Damaged {
        file: path.to_path_buf(),
        reason,
    };
    let mut file = File::open(path).map_err(ModelError::io(path))?;
    let length = file.metadata().map_err(ModelError::io(path))?.len();
    let mut size = [0; 8];
    if length < 8 {
        return Err(damaged(format!(
            "{length} bytes are too short for safetensors"
        )));
    }
    file.read_exact(&mut size).map_err(ModelError::io(path))?;
    let size = u64::from_le_bytes(size);
    if size > LARGEST_HEADER || size > length - 8 {
        return Err(damaged(format!(
            "a header of {size} bytes in a file of {length}"
        )));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(ModelError::io(path))?;
    let Unique(entries) = serde_json::from_slice(&header).map_err(|source| ModelError::Json {
        file: path.to_path_buf(),
        source,
    })?;
    let data = length - 8 - size;
    let mut tensors = Vec::new();
    for (name, description) in entries {
        if name != "__metadata__" {
            let entry = entry(path, &name, &description, elements, (8 + size, data))?;
            tensors.push((name, entry));
        }
    }
    // Side by side: neither overlaps nor gaps, in which something could hide.
    let mut order: Vec<_> = tensors.iter().map(|(_, e)| (e.start, e.bytes)).collect();
    order.sort_unstable();
    let mut expected = 8 + size;
    for (start, bytes) in order {
        if start != expected {
            return Err(damaged(format!(
                "a tensor starts at byte {start}, expected {expected}"
            )));
        }
        expected += bytes as u64;
    }
    if expected != length {
        let extra = length - expected;
        return Err(damaged(format!("{extra} bytes after the last tensor")));
    }
    Ok(tensors)
}

fn entry(
    path: &Path,
    name: &str,
    description: &Value,
    elements: Elements,
    (first, data): (u64, u64),
) -> Result<Entry, ModelError> {
    let damaged = |reason: String| ModelError::DamagedTensor {
        file: path.to_path_buf(),
        tensor: name.to_string(),
        reason,
    };
    let numbers = |key: &str| {
        let list = description.get(key).and_then(Value::as_array);
        let numbers =
            list.and_then(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
        numbers.ok_or_else(|| damaged(format!("`{key}` is not a list of whole numbers")))
    };
    let dtype = match description.get("dtype").and_then(Value::as_str) {
        Some("F32") => DType::F32,
        Some("BF16") => DType::BF16,
        Some("F16") => DType::F16,
        Some("U8") if elements == Elements::FloatsAndBytes => DType::U8,
        other => {
            return Err(ModelError::TensorDType {
                file: path.to_path_buf(),
                tensor: name.to_string(),
                dtype: other.unwrap_or("no dtype").to_string(),
                expected: FLOATS,
            });
        }
    };
    let shape = numbers("shape")?;
    let bytes = shape
        .iter()
        .try_fold(dtype.size() as u64, |bytes, &dim| bytes.checked_mul(dim))
        .ok_or_else(|| damaged(format!("shape {shape:?} overflows")))?;
    let [start, end] = numbers("data_offsets")?[..] else {
        return Err(damaged("`data_offsets` are not two numbers".into()));
    };
    if start > end || end > data {
        return Err(damaged(format!("bytes {start}..{end} of {data}")));
    }
    if end - start != bytes {
        let got = end - start;
        return Err(damaged(format!(
            "shape {shape:?} of {dtype} has {bytes} bytes, got {got}"
        )));
    }
    let size = |number: u64| {
        usize::try_from(number).map_err(|_| damaged("is too large for this machine".into()))
    };
    let shape = shape.into_iter().map(size).collect::<Result<_, _>>()?;
    Ok(Entry {
        file: path.to_path_buf(),
        dtype,
        shape,
        start: first + start,
        bytes: size(bytes)?,
    })
}
