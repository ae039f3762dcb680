//! Reads the header of a GGUF file: metadata and where each tensor lies. Nothing in it is trusted:
//! every length is held against what is left of the file before memory is taken for it.

use super::quantized::Encoding;
use crate::ModelError;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// A signed or unsigned whole number of any width.
    Integer(i128),
    /// A floating-point number of any width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list of values of one type.
    Array(Vec<GgufValue>),
}

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
    if reader.bytes::<4>()? != MAGIC {
        return Err(reader.damaged("does not begin with GGUF".into()));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        // Big-endian files have their version in the other order, and end here too.
        return Err(reader.damaged(format!("version {version} is not supported: 2 and 3 are")));
    }
    let (tensors, entries) = (reader.u64()?, reader.u64()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind, false)?;
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
        Some(other) => return Err(reader.damaged(format!("alignment {other:?}"))),
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
    for tensor in tensors.iter_mut() {
        let offset = tensor.start;
        let end = first
            .checked_add(offset)
            .and_then(|start| start.checked_add(tensor.bytes));
        if !offset.is_multiple_of(alignment) || end.is_none_or(|end| end > length) {
            let bytes = tensor.bytes;
            let reason = format!("{bytes} bytes at offset {offset} of a file of {length}");
            return Err(damaged(tensor, reason));
        }
        tensor.start = first + offset;
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

    /// Fails unless `bytes` are left.
    fn need(&self, bytes: u64) -> Result<(), ModelError> {
        if bytes <= self.length - self.position {
            return Ok(());
        }
        let (position, length) = (self.position, self.length);
        let reason = format!("{bytes} bytes at {position} lie beyond the end of {length}");
        Err(self.damaged(reason))
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
        self.need(length)?;
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact(&mut bytes)
            .map_err(ModelError::io(self.path))?;
        self.position += length;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text is not UTF-8".into()))
    }

    fn value(&mut self, kind: u32, inside: bool) -> Result<GgufValue, ModelError> {
        let integer = |n: i128| Ok(GgufValue::Integer(n));
        match kind {
            0 => integer(u8::from_le_bytes(self.bytes()?).into()),
            1 => integer(i8::from_le_bytes(self.bytes()?).into()),
            2 => integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => integer(u32::from_le_bytes(self.bytes()?).into()),
            5 => integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => Ok(GgufValue::Float(f32::from_le_bytes(self.bytes()?).into())),
            7 => Ok(GgufValue::Bool(self.bytes::<1>()?[0] != 0)),
            8 => Ok(GgufValue::Text(self.text()?)),
            9 if !inside => {
                let (kind, length) = (self.u32()?, self.u64()?);
                // Every element has at least one byte.
                self.need(length)?;
                let values = (0..length).map(|_| self.value(kind, true));
                Ok(GgufValue::Array(values.collect::<Result<_, _>>()?))
            }
            10 => integer(u64::from_le_bytes(self.bytes()?).into()),
            11 => integer(i64::from_le_bytes(self.bytes()?).into()),
            12 => Ok(GgufValue::Float(f64::from_le_bytes(self.bytes()?))),
            other => Err(self.damaged(format!("metadata of type {other} is not supported"))),
        }
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
