//! Reads the header of a GGUF file: metadata and the place of each tensor. Nothing in it is
//! trusted: every length is compared with the rest of the file, and with the largest header, before
//! memory is allocated for it.

use super::{
    ALIGNMENT, Gguf, MOST_DIMENSIONS, Metadata,
    value::{LIST, List, TEXT, Value, scalar, width},
};
use crate::{Encoding, FormatError, LARGEST_HEADER, MOST_TENSORS, TensorInfo, Tensors, diagnosis};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
    sync::Arc,
};

const MAGIC: [u8; 4] = *b"GGUF";
/// Largest number of metadata entries; real files have about fifty.
const MOST_ENTRIES: u64 = 1 << 16;

/// Reads the header of the file at `path`.
pub(super) fn read(path: &Path) -> Result<Gguf, FormatError> {
    let file = File::open(path).map_err(FormatError::io(path))?;
    let length = file.metadata().map_err(FormatError::io(path))?.len();
    let mut reader = Reader {
        path,
        file: BufReader::with_capacity(1 << 16, file),
        position: 0,
        length,
    };
    if length < 4 || reader.bytes::<4>()? != MAGIC {
        let other = || reader.damaged("does not begin with GGUF".into());
        return Err(diagnosis::of(path).unwrap_or_else(other));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        // Big-endian files store the version in the other byte order, and fail here too.
        return Err(reader.damaged(format!("version {version} is not supported: 2 and 3 are")));
    }
    let (tensors, count) = (reader.u64()?, reader.u64()?);
    if tensors > MOST_TENSORS as u64 || count > MOST_ENTRIES {
        let reason = format!(
            "{tensors} tensors and {count} metadata entries are more than {MOST_TENSORS} and \
             {MOST_ENTRIES}"
        );
        return Err(reader.damaged(reason));
    }
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let key = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind)?;
        if entries.insert(key.clone(), value).is_some() {
            return Err(reader.damaged(format!("metadata `{key}` appears twice")));
        }
    }
    let shared: Arc<Path> = path.into();
    let mut described = BTreeMap::new();
    for _ in 0..tensors {
        let (name, tensor) = reader.tensor(&shared)?;
        if described.insert(name.clone(), tensor).is_some() {
            return Err(FormatError::Duplicate {
                file: path.to_path_buf(),
                tensor: name,
            });
        }
    }
    let alignment = match entries.get("general.alignment") {
        None => ALIGNMENT,
        Some(value) => match value.as_integer() {
            Some(n) if (1..=1 << 20).contains(&n) => n as u64,
            _ => return Err(reader.damaged(format!("alignment {value}"))),
        },
    };
    let first = reader.position.next_multiple_of(alignment);
    place(path, &mut described, first, alignment, length)?;
    Ok(Gguf {
        metadata: Metadata::new(path, entries),
        tensors: Tensors::new(path, described),
    })
}

/// Turns offsets into positions in the file; tensors must lie inside it and must not overlap.
fn place(
    path: &Path,
    tensors: &mut BTreeMap<String, TensorInfo>,
    first: u64,
    alignment: u64,
    length: u64,
) -> Result<(), FormatError> {
    let damaged = |tensor: &str, reason: String| FormatError::DamagedTensor {
        file: path.to_path_buf(),
        tensor: tensor.to_string(),
        reason,
    };
    let mut last = 0;
    for (name, tensor) in tensors.iter_mut() {
        let (offset, bytes) = (tensor.start, tensor.bytes);
        let start = first.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes as u64));
        let (Some(start), Some(end), true) = (start, end, offset.is_multiple_of(alignment)) else {
            let reason = format!("{bytes} bytes at offset {offset} of a file of {length}");
            return Err(damaged(name, reason));
        };
        tensor.start = start;
        last = last.max(end);
    }
    if last > length {
        return Err(FormatError::Cut {
            file: path.to_path_buf(),
            length,
            expected: last,
        });
    }
    let mut order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| (tensor.start, tensor.bytes));
    for pair in order.windows(2) {
        let [(before, tensor), (name, next)] = pair else {
            continue;
        };
        if tensor.start + tensor.bytes as u64 > next.start {
            return Err(damaged(name, format!("overlaps `{before}`")));
        }
    }
    Ok(())
}

struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    position: u64,
    length: u64,
}

impl Reader<'_> {
    fn damaged(&self, reason: String) -> FormatError {
        FormatError::Damaged {
            file: self.path.to_path_buf(),
            reason,
        }
    }

    /// Fails unless `bytes` are left in the file and in the largest header.
    fn need(&self, bytes: u64) -> Result<(), FormatError> {
        let (position, length) = (self.position, self.length);
        if bytes <= length.min(LARGEST_HEADER).saturating_sub(position) {
            return Ok(());
        }
        let reason = match bytes <= length - position {
            true => format!("its header is larger than {LARGEST_HEADER} bytes"),
            false => format!(
                "{bytes} bytes at {position} lie beyond its end at {length}: it is cut short or \
                 damaged; download or copy it again"
            ),
        };
        Err(self.damaged(reason))
    }

    /// Adds the next `length` bytes to `bytes`.
    fn append(&mut self, bytes: &mut Vec<u8>, length: u64) -> Result<(), FormatError> {
        self.need(length)?;
        let before = bytes.len();
        bytes.resize(before + length as usize, 0);
        self.file
            .read_exact(&mut bytes[before..])
            .map_err(FormatError::io(self.path))?;
        self.position += length;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        self.need(N as u64)?;
        let mut bytes = [0; N];
        self.file
            .read_exact(&mut bytes)
            .map_err(FormatError::io(self.path))?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> Result<String, FormatError> {
        let length = self.u64()?;
        let mut bytes = Vec::new();
        self.append(&mut bytes, length)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text is not UTF-8".into()))
    }

    fn value(&mut self, kind: u32) -> Result<Value, FormatError> {
        match (kind, width(kind)) {
            (TEXT, _) => Ok(Value::Text(self.text()?)),
            (LIST, _) => Ok(Value::List(self.list()?)),
            (_, Some(width)) => {
                let mut bytes = Vec::new();
                self.append(&mut bytes, width as u64)?;
                scalar(kind, &bytes).ok_or_else(|| self.unknown(kind))
            }
            (_, None) => Err(self.unknown(kind)),
        }
    }

    fn unknown(&self, kind: u32) -> FormatError {
        self.damaged(format!("metadata of type {kind} is not supported"))
    }

    fn list(&mut self) -> Result<List, FormatError> {
        let (kind, len) = (self.u32()?, self.u64()?);
        // Every text begins with its length.
        let least = match kind {
            TEXT => Some(8),
            _ => width(kind).map(|width| width as u64),
        };
        let least = least.ok_or_else(|| self.unknown(kind))?.saturating_mul(len);
        self.need(least)?;
        let mut bytes = Vec::new();
        if kind != TEXT {
            self.append(&mut bytes, least)?;
        } else {
            for _ in 0..len {
                let length = self.u64()?;
                bytes.extend(length.to_le_bytes());
                let before = bytes.len();
                self.append(&mut bytes, length)?;
                if std::str::from_utf8(&bytes[before..]).is_err() {
                    return Err(self.damaged("a text is not UTF-8".into()));
                }
            }
        }
        Ok(List {
            kind,
            len: len as usize,
            bytes,
        })
    }

    /// Reads a tensor whose `start` still counts from the beginning of the elements.
    fn tensor(&mut self, file: &Arc<Path>) -> Result<(String, TensorInfo), FormatError> {
        let name = self.text()?;
        let damaged = |reason: String| FormatError::DamagedTensor {
            file: file.to_path_buf(),
            tensor: name.clone(),
            reason,
        };
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(damaged(format!("{dimensions} dimensions")));
        }
        let mut innermost_first = Vec::new();
        for _ in 0..dimensions {
            innermost_first.push(self.u64()?);
        }
        let (kind, offset) = (self.u32()?, self.u64()?);
        let Some(encoding) = Encoding::from_gguf(kind) else {
            return Err(FormatError::TensorDType {
                file: file.to_path_buf(),
                tensor: name,
                dtype: format!("GGUF type {kind}"),
                expected: Encoding::OF_GGUF,
            });
        };
        let shape: Vec<u64> = innermost_first.iter().rev().copied().collect();
        let bytes = encoding.bytes(&shape).map(usize::try_from);
        let sizes = shape.into_iter().map(usize::try_from).collect();
        let (Some(Ok(bytes)), Ok(shape)) = (bytes, sizes) else {
            let name = encoding.name();
            return Err(damaged(format!("shape {innermost_first:?} of {name}")));
        };
        let tensor = TensorInfo {
            file: file.clone(),
            encoding,
            shape,
            start: offset,
            bytes,
        };
        Ok((name, tensor))
    }
}
