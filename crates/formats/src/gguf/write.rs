//! Writes GGUF: the same bytes for the same contents, whole or not at all.

use super::{ALIGNMENT, MOST_DIMENSIONS, Value, value::text};
use crate::{FormatError, TensorOut, files::Temporary};
use std::{
    collections::HashSet,
    io::{BufWriter, Write},
    path::Path,
};

/// Writes metadata and tensors in the given order (version 3 of the format). Keys must differ, and so
/// must names.
pub fn write<E: From<FormatError>>(
    path: &Path,
    metadata: &[(&str, Value)],
    tensors: Vec<TensorOut<'_, E>>,
) -> Result<(), E> {
    let mut header = b"GGUF\x03\0\0\0".to_vec();
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        if !keys.insert(key) {
            return Err(E::from(FormatError::Metadata {
                file: path.to_path_buf(),
                key: (*key).to_string(),
                reason: "appears twice".to_string(),
            }));
        }
        let (kind, bytes) = value.encode();
        header.extend(text(key));
        header.extend(kind.to_le_bytes());
        header.extend(bytes);
    }
    let mut names = HashSet::new();
    let mut offset = 0u64;
    for tensor in &tensors {
        let (Some(size), Some(kind), true) = (
            tensor.size(),
            tensor.encoding.gguf_id(),
            tensor.shape.len() <= MOST_DIMENSIONS as usize,
        ) else {
            return Err(tensor.refused(path).into());
        };
        if !names.insert(&tensor.name) {
            return Err(E::from(FormatError::Duplicate {
                file: path.to_path_buf(),
                tensor: tensor.name.clone(),
            }));
        }
        header.extend(text(&tensor.name));
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        let innermost_first = tensor.shape.iter().rev();
        header.extend(innermost_first.flat_map(|&dim| (dim as u64).to_le_bytes()));
        header.extend(kind.to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = (offset + size).next_multiple_of(ALIGNMENT);
    }
    drop(names);
    let io = || FormatError::io(path);
    let (temporary, file) = Temporary::file(path).map_err(io())?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut write = |bytes: &[u8]| {
        let gap = bytes.len().next_multiple_of(ALIGNMENT as usize) - bytes.len();
        file.write_all(bytes)?;
        file.write_all(&[0; ALIGNMENT as usize][..gap])
    };
    write(&header).map_err(io())?;
    for tensor in tensors {
        write(&tensor.elements(path)?).map_err(io())?;
    }
    file.flush().map_err(io())?;
    drop(file);
    Ok(temporary.finish().map_err(io())?)
}
