//! Writes safetensors: the same bytes for the same contents, whole or not at all.

use super::{INDEX, WHOLE};
use crate::{
    FormatError, TensorOut,
    files::{self, Temporary},
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    io::{BufWriter, Write},
    path::Path,
};

/// Writes the tensors in the given order. Names of tensors must differ, and so must keys of
/// `metadata`.
pub fn write<E: From<FormatError>>(
    path: &Path,
    metadata: &[(&str, &str)],
    tensors: Vec<TensorOut<'_, E>>,
) -> Result<(), E> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let metadata = metadata
            .iter()
            .map(|&(key, text)| (key.into(), text.into()));
        header.insert("__metadata__".into(), Value::Object(metadata.collect()));
    }
    let mut offset = 0;
    for tensor in &tensors {
        let size = tensor.size().filter(|_| !tensor.encoding.is_quantized());
        let size = size.ok_or_else(|| tensor.refused(path))?;
        let end = offset + size;
        let description = json!({
            "dtype": tensor.encoding.name(),
            "shape": tensor.shape,
            "data_offsets": [offset, end],
        });
        if header.insert(tensor.name.clone(), description).is_some() {
            return Err(E::from(FormatError::Duplicate {
                file: path.to_path_buf(),
                tensor: tensor.name.clone(),
            }));
        }
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Tensors begin at a multiple of 8, which readers that map the file expect.
    header.resize(header.len().next_multiple_of(8), b' ');
    let io = || FormatError::io(path);
    let (temporary, file) = Temporary::file(path).map_err(io())?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .map_err(io())?;
    file.write_all(&header).map_err(io())?;
    for tensor in tensors {
        file.write_all(&tensor.elements(path)?).map_err(io())?;
    }
    file.flush().map_err(io())?;
    drop(file);
    Ok(temporary.finish().map_err(io())?)
}

/// Writes the tensors of a model into `folder`, in the given order, as Transformers does: into
/// [`WHOLE`], or into several files of at most `shard_bytes` (more for a tensor that is larger) and
/// [`INDEX`].
pub fn write_model<E: From<FormatError>>(
    folder: &Path,
    tensors: Vec<TensorOut<'_, E>>,
    shard_bytes: u64,
) -> Result<(), E> {
    let mut shards: Vec<Vec<TensorOut<'_, E>>> = Vec::new();
    let mut room = 0;
    for tensor in tensors {
        let size = tensor.size().unwrap_or(0);
        match shards.last_mut() {
            Some(shard) if size <= room => {
                room -= size;
                shard.push(tensor);
            }
            _ => {
                room = shard_bytes.saturating_sub(size);
                shards.push(vec![tensor]);
            }
        }
    }
    let count = shards.len();
    let (mut weight_map, mut total) = (BTreeMap::new(), 0);
    for (index, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => WHOLE.to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        for tensor in &shard {
            total += tensor.size().unwrap_or(0);
            weight_map.insert(tensor.name.clone(), file.clone());
        }
        // There is one key only: this crate would write several in a fixed order, but others hash
        // them.
        write(&folder.join(file), &[("format", "pt")], shard)?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        files::write_json(&folder.join(INDEX), &index)?;
    }
    Ok(())
}
