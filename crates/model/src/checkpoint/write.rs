//! Writes safetensors and JSON: the same bytes for the same contents, whole or not at all.

use crate::ModelError;
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};
use tightrope_device::DType;

/// A tensor to be written.
pub(crate) struct TensorOut<'a> {
    pub name: &'a str,
    pub dtype: DType,
    pub shape: &'a [usize],
    /// Its elements as little-endian bytes; asked for once, when they are written.
    pub bytes: Box<dyn Fn() -> Result<Vec<u8>, ModelError> + 'a>,
}

impl TensorOut<'_> {
    /// Its size in the file.
    pub fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Writes the tensors in the given order.
pub(crate) fn write_safetensors(path: &Path, tensors: &[TensorOut<'_>]) -> Result<(), ModelError> {
    let mut header = Map::new();
    // One key: several would still be written in a fixed order here, but others hash them.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.size();
        let description = json!({
            "dtype": tensor.dtype.name().to_uppercase(),
            "shape": tensor.shape,
            "data_offsets": [offset, end],
        });
        header.insert(tensor.name.to_string(), description);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Tensors begin at a multiple of 8, as readers that map the file expect.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_whole(path, |file| {
        let io = || ModelError::io(path);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .map_err(io())?;
        file.write_all(&header).map_err(io())?;
        for tensor in tensors {
            file.write_all(&(tensor.bytes)()?).map_err(io())?;
        }
        Ok(())
    })
}

/// Writes JSON for people: indented, with a final newline.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    write_whole(path, |file| {
        writeln!(file, "{value:#}").map_err(ModelError::io(path))
    })
}

/// Writes to a temporary name in the same folder, syncs and renames.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let io = || ModelError::io(path);
    let written = File::create(temporary).map_err(io()).and_then(|file| {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        write(&mut file)?;
        let file = file
            .into_inner()
            .map_err(|error| io()(error.into_error()))?;
        file.sync_all().map_err(io())?;
        std::fs::rename(temporary, path).map_err(io())
    });
    if written.is_err() {
        // The first error is what matters; a leftover temporary file is no worse than before.
        let _ = std::fs::remove_file(temporary);
        return written;
    }
    // The rename itself lasts only once the folder is synced.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io())
}
