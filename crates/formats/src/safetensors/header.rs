//! Reads the header of a safetensors file piece by piece. The memory that it keeps grows with the
//! number of described tensors, which is limited, and not with other contents of the header.

use crate::{Encoding, FormatError, LARGEST_HEADER, MOST_TENSORS, TensorInfo, diagnosis};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufReader, Read, Take},
    path::Path,
    sync::Arc,
};

/// Largest size in bytes of the description of a tensor, the name of a tensor and the name of a
/// file.
const LONGEST_TEXT: usize = 4096;

/// Largest number of dimensions of a tensor: twice as many as any known tensor has.
const MOST_DIMENSIONS: usize = 8;

/// Takes one name and its value.
type TakeEntry<'a> = &'a mut dyn FnMut(String, Box<RawValue>) -> Result<(), FormatError>;

/// Passes each entry of a JSON object to `take`, in the order of the file. An error of `take` ends
/// the reading and is stored in `failed`.
pub(super) struct Entries<'a> {
    pub take: TakeEntry<'a>,
    pub failed: &'a mut Option<FormatError>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();
    fn deserialize<S: Deserializer<'de>>(self, deserializer: S) -> Result<(), S::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let text: Box<RawValue> = map.next_value()?;
            if name.len().max(text.get().len()) > LONGEST_TEXT {
                let length = name.len() + text.get().len();
                let start: String = name.chars().take(40).collect();
                return Err(M::Error::custom(format!(
                    "an entry of {length} bytes, `{start}…`: more than any tensor has"
                )));
            }
            if let Err(error) = (self.take)(name, text) {
                *self.failed = Some(error);
                return Err(M::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// The header of a file: JSON that is read from the start.
struct Header {
    json: BufReader<Take<File>>,
    /// Offset of the first tensor's elements in bytes.
    first: u64,
    /// Length of the file in bytes.
    length: u64,
}

impl Header {
    fn open(path: &Path) -> Result<Self, FormatError> {
        let stand_in = |reason: String| {
            diagnosis::of(path).unwrap_or_else(|| FormatError::Damaged {
                file: path.to_path_buf(),
                reason,
            })
        };
        let mut file = File::open(path).map_err(FormatError::io(path))?;
        let length = file.metadata().map_err(FormatError::io(path))?.len();
        if length < 8 {
            let reason = format!("{length} bytes are too short for safetensors");
            return Err(stand_in(reason));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(FormatError::io(path))?;
        let size = u64::from_le_bytes(size);
        if size > LARGEST_HEADER {
            let reason = format!("its header would have {size} bytes, more than {LARGEST_HEADER}");
            return Err(stand_in(reason));
        }
        let first = 8 + size;
        if first > length {
            return Err(cut(path, length, first));
        }
        let json = BufReader::new(file.take(size));
        Ok(Self {
            json,
            first,
            length,
        })
    }
}

fn cut(path: &Path, length: u64, expected: u64) -> FormatError {
    FormatError::Cut {
        file: path.to_path_buf(),
        length,
        expected,
    }
}

fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> FormatError {
    let file = path.to_path_buf();
    move |source| FormatError::Json { file, source }
}

/// Reads the metadata of the file as a whole.
pub(super) fn metadata(path: &Path) -> Result<BTreeMap<String, String>, FormatError> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        #[serde(default, rename = "__metadata__")]
        entries: BTreeMap<String, String>,
    }
    let header = Header::open(path)?;
    let metadata: Metadata = serde_json::from_reader(header.json).map_err(json(path))?;
    Ok(metadata.entries)
}

/// The tensors of a file. They must lie side by side and end where the file ends.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, TensorInfo>, FormatError> {
    let damaged = |reason: String| FormatError::Damaged {
        file: path.to_path_buf(),
        reason,
    };
    let Header {
        json: header,
        first,
        length,
    } = Header::open(path)?;
    let mut tensors = BTreeMap::new();
    let shared: Arc<Path> = path.into();
    let mut failed = None;
    let mut take = |name: String, text: Box<RawValue>| {
        if tensors.len() == MOST_TENSORS {
            return Err(damaged(format!("has more than {MOST_TENSORS} tensors")));
        }
        let entry = entry(&shared, &name, &text, first)?;
        match tensors.insert(name.clone(), entry) {
            None => Ok(()),
            Some(_) => Err(FormatError::Duplicate {
                file: path.to_path_buf(),
                tensor: name,
            }),
        }
    };
    let mut text = serde_json::Deserializer::from_reader(header);
    let entries = Entries {
        take: &mut take,
        failed: &mut failed,
    };
    let read = entries.deserialize(&mut text).and_then(|()| text.end());
    if let Some(error) = failed {
        return Err(error);
    }
    read.map_err(json(path))?;
    // Tensors lie side by side: there are no overlaps, and no gaps in which something could hide.
    let mut order: Vec<_> = tensors.values().map(|e| (e.start, e.bytes)).collect();
    order.sort_unstable();
    let mut expected = first;
    for (start, bytes) in order {
        if start != expected {
            return Err(damaged(format!(
                "a tensor starts at byte {start}, expected {expected}"
            )));
        }
        expected = expected.saturating_add(bytes as u64);
    }
    if expected > length {
        return Err(cut(path, length, expected));
    }
    if expected != length {
        let extra = length - expected;
        return Err(damaged(format!("{extra} bytes after the last tensor")));
    }
    Ok(tensors)
}

/// Checks the description of a tensor for consistency; bytes are counted from `first`.
fn entry(
    file: &Arc<Path>,
    name: &str,
    description: &RawValue,
    first: u64,
) -> Result<TensorInfo, FormatError> {
    let damaged = |reason: String| FormatError::DamagedTensor {
        file: file.to_path_buf(),
        tensor: name.to_string(),
        reason,
    };
    let description: Value = serde_json::from_str(description.get())
        .map_err(|error| damaged(format!("its description is not JSON: {error}")))?;
    let numbers = |key: &str| {
        let list = description.get(key).and_then(Value::as_array);
        let numbers =
            list.and_then(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
        numbers.ok_or_else(|| damaged(format!("`{key}` is not a list of whole numbers")))
    };
    let dtype = description.get("dtype").and_then(Value::as_str);
    let Some(encoding) = dtype.and_then(Encoding::from_safetensors) else {
        return Err(FormatError::TensorDType {
            file: file.to_path_buf(),
            tensor: name.to_string(),
            dtype: dtype.unwrap_or("no dtype").to_string(),
            expected: Encoding::OF_SAFETENSORS,
        });
    };
    let shape = numbers("shape")?;
    if shape.len() > MOST_DIMENSIONS {
        return Err(damaged(format!("has {} dimensions", shape.len())));
    }
    let bytes = encoding
        .bytes(&shape)
        .ok_or_else(|| damaged(format!("shape {shape:?} overflows")))?;
    let [start, end] = numbers("data_offsets")?[..] else {
        return Err(damaged("`data_offsets` are not two numbers".into()));
    };
    if start > end || end > u64::MAX - first {
        return Err(damaged(format!("lies at bytes {start}..{end}")));
    }
    if end - start != bytes {
        let got = end - start;
        return Err(damaged(format!(
            "shape {shape:?} of {encoding} has {bytes} bytes, got {got}"
        )));
    }
    let size = |number: u64| {
        usize::try_from(number).map_err(|_| damaged("is too large for this machine".into()))
    };
    Ok(TensorInfo {
        file: file.clone(),
        encoding,
        shape: shape.into_iter().map(size).collect::<Result<_, _>>()?,
        start: first + start,
        bytes: size(bytes)?,
    })
}
