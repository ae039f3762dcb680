//! Reads the header of a GGUF file: metadata and where each tensor lies. Nothing in it is trusted:
//! every length is held against what is left of the file, and of the largest header, before memory is
//! taken for it.

use super::{
    quantized::Encoding,
    value::{GgufValue, List, TEXT, scalar, width},
};
use crate::{
    ModelError,
    checkpoint::{LARGEST_HEADER, MOST_TENSORS, diagnosis},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

/// A tensor, as the file describes it.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub name: String,
    /// Outermost first.
    pub shape: Vec<usize>,
    pub encoding: Encoding,
    /// From the beginning of the file.
    pub start: u64,
    pub bytes: u64,
}

/// The header.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, GgufValue>,
    pub tensors: Vec<Described>,
}

const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT: u64 = 32;
/// Metadata entries: files have some fifty.
const MOST_ENTRIES: u64 = 1 << 16;
/// Dimensions of a tensor in the format.
const MOST_DIMENSIONS: u32 = 4;

/// Reads the header of the file at `path`.
pub(super) fn read(path: &Path) -> Result<Header, ModelError> {
    let file = File::open(path).map_err(ModelError::io(path))?;
    let length = file.metadata().map_err(ModelError::io(path))?.len();
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
        // Big-endian files have their version in the other order, and end here too.
        return Err(reader.damaged(format!("version {version} is not supported: 2 and 3 are")));
    }
    let (tensors, entries) = (reader.u64()?, reader.u64()?);
    if tensors > MOST_TENSORS as u64 || entries > MOST_ENTRIES {
        let reason = format!(
            "{tensors} tensors and {entries} metadata entries are more than {MOST_TENSORS} and \
             {MOST_ENTRIES}"
        );
        return Err(reader.damaged(reason));
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(reader.damaged(format!("metadata `{key}` appears twice")));
        }
    }
    let mut described = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..tensors {
        let tensor = reader.tensor()?;
        if !seen.insert(tensor.name.clone()) {
            return Err(ModelError::Duplicate {
                file: path.to_path_buf(),
                tensor: tensor.name,
            });
        }
        described.push(tensor);
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(&GgufValue::Integer(n)) if (1..=1 << 20).contains(&n) => n as u64,
        Some(other) => return Err(reader.damaged(format!("alignment {other}"))),
    };
    let first = reader.position.next_multiple_of(alignment);
    place(path, &mut described, first, alignment, length)?;
    Ok(Header {
        metadata,
        tensors: described,
    })
}

/// Turns offsets into positions in the file; tensors must lie inside it and apart.
fn place(
    path: &Path,
    tensors: &mut [Described],
    first: u64,
    alignment: u64,
    length: u64,
) -> Result<(), ModelError> {
    let damaged = |tensor: &Described, reason: String| ModelError::DamagedTensor {
        file: path.to_path_buf(),
        tensor: tensor.name.clone(),
        reason,
    };
    let mut last = 0;
    for tensor in tensors.iter_mut() {
        let (offset, bytes) = (tensor.start, tensor.bytes);
        let start = first.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes));
        let (Some(start), Some(end), true) = (start, end, offset.is_multiple_of(alignment)) else {
            let reason = format!("{bytes} bytes at offset {offset} of a file of {length}");
            return Err(damaged(tensor, reason));
        };
        tensor.start = start;
        last = last.max(end);
    }
    if last > length {
        return Err(ModelError::Cut {
            file: path.to_path_buf(),
            length,
            expected: last,
        });
    }
    let mut order: Vec<&Described> = tensors.iter().collect();
    order.sort_by_key(|tensor| (tensor.start, tensor.bytes));
    for pair in order.windows(2) {
        if pair[0].start + pair[0].bytes > pair[1].start {
            return Err(damaged(pair[1], format!("overlaps `{}`", pair[0].name)));
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
    fn damaged(&self, reason: String) -> ModelError {
        ModelError::Damaged {
            file: self.path.to_path_buf(),
            reason,
        }
    }

    /// Fails unless `bytes` are left, of the file and of the largest header.
    fn need(&self, bytes: u64) -> Result<(), ModelError> {
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
    fn append(&mut self, bytes: &mut Vec<u8>, length: u64) -> Result<(), ModelError> {
        self.need(length)?;
        let before = bytes.len();
        bytes.resize(before + length as usize, 0);
        self.file
            .read_exact(&mut bytes[before..])
            .map_err(ModelError::io(self.path))?;
        self.position += length;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        self.need(N as u64)?;
        let mut bytes = [0; N];
        self.file
            .read_exact(&mut bytes)
            .map_err(ModelError::io(self.path))?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> Result<String, ModelError> {
        let length = self.u64()?;
        let mut bytes = Vec::new();
        self.append(&mut bytes, length)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text is not UTF-8".into()))
    }

    fn value(&mut self, kind: u32) -> Result<GgufValue, ModelError> {
        const LIST: u32 = 9;
        match (kind, width(kind)) {
            (TEXT, _) => Ok(GgufValue::Text(self.text()?)),
            (LIST, _) => Ok(GgufValue::List(self.list()?)),
            (_, Some(width)) => {
                let mut bytes = Vec::new();
                self.append(&mut bytes, width as u64)?;
                scalar(kind, &bytes).ok_or_else(|| self.unknown(kind))
            }
            (_, None) => Err(self.unknown(kind)),
        }
    }

    fn unknown(&self, kind: u32) -> ModelError {
        self.damaged(format!("metadata of type {kind} is not supported"))
    }

    fn list(&mut self) -> Result<List, ModelError> {
        let (kind, len) = (self.u32()?, self.u64()?);
        // Before a text stands its length.
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

    fn tensor(&mut self) -> Result<Described, ModelError> {
        let name = self.text()?;
        let file = self.path.to_path_buf();
        let damaged = |reason: String| ModelError::DamagedTensor {
            file,
            tensor: name.clone(),
            reason,
        };
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(damaged(format!("{dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.u64()?);
        }
        let (kind, offset) = (self.u32()?, self.u64()?);
        let Some(encoding) = Encoding::from_id(kind) else {
            return Err(ModelError::TensorDType {
                file: self.path.to_path_buf(),
                tensor: name,
                dtype: format!("GGUF type {kind}"),
                expected: Encoding::KNOWN,
            });
        };
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let row = shape.first().copied().unwrap_or(1);
        let bytes = elements
            .filter(|_| row.is_multiple_of(encoding.block_elements() as u64))
            .map(|elements| elements / encoding.block_elements() as u64)
            .and_then(|blocks| blocks.checked_mul(encoding.block_bytes() as u64));
        let sizes = shape.iter().rev().map(|&dim| usize::try_from(dim).ok());
        let (Some(bytes), Some(sizes)) = (bytes, sizes.collect::<Option<Vec<_>>>()) else {
            return Err(damaged(format!("shape {shape:?} of {}", encoding.name())));
        };
        Ok(Described {
            name,
            shape: sizes,
            encoding,
            start: offset,
            bytes,
        })
    }
}
