//! Identifies the starting point of a run by digests of the files of model and adapter.

use crate::{RunError, source::Source};
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tightrope_formats::{FormatError, Tensors, files::hexadecimal, safetensors};
use tightrope_train::Config;

/// Number of bytes that are digested together. The fingerprint depends on it.
const PIECE: u64 = 16 << 20;

/// Facts that identify model and adapter of a run, wherever their files lie.
pub(crate) fn facts(
    config: &Config,
    source: &Source,
) -> Result<Vec<(&'static str, Value)>, RunError> {
    let mut facts = match source {
        Source::Gguf(file) => vec![("model file", of_files(std::slice::from_ref(file))?)],
        Source::Folder(folder) => vec![
            ("model configuration", of_json(&folder.join("config.json"))?),
            ("model weights", of_files(&weights(folder)?)?),
        ],
    };
    if let Some(folder) = &config.adapter {
        let configuration = folder.join("adapter_config.json");
        facts.push(("adapter configuration", of_json(&configuration)?));
        let weights = folder.join("adapter_model.safetensors");
        facts.push(("adapter weights", of_files(&[weights])?));
    }
    Ok(facts)
}

/// Files of weights in a model folder, as they are loaded: one file, or the files of the index.
fn weights(folder: &Path) -> Result<Vec<PathBuf>, RunError> {
    let [whole, index] = [safetensors::WHOLE, safetensors::INDEX].map(|name| folder.join(name));
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    if !index.is_file() {
        // The error says what the folder holds instead.
        Tensors::open(folder)?;
    }
    let files = safetensors::read_index(&index)?;
    Ok(files.keys().map(|name| folder.join(name)).collect())
}

fn read_json(path: &Path) -> Result<Value, RunError> {
    let text = fs::read(path).map_err(FormatError::io(path))?;
    serde_json::from_slice(&text).map_err(|error| FormatError::io(path)(error.into()).into())
}

/// Digest of the meaning of a JSON file, however it is formatted.
fn of_json(path: &Path) -> Result<Value, RunError> {
    let text = read_json(path)?.to_string();
    Ok(json!({ "sha256": hexadecimal(&Sha256::digest(text)) }))
}

/// SHA-256 of the SHA-256 of each piece of each file: every byte counts, and every core helps.
pub(crate) fn of_files(paths: &[PathBuf]) -> Result<Value, RunError> {
    let (mut all, mut bytes) = (Sha256::new(), 0);
    for path in paths {
        let size = fs::metadata(path).map_err(FormatError::io(path))?.len();
        let pieces = (0..size.div_ceil(PIECE)).into_par_iter();
        let digests: Vec<_> = pieces
            .map(|piece| {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(piece * PIECE))?;
                let mut hash = Sha256::new();
                let mut file = file.take(PIECE);
                let mut buffer = vec![0; 1 << 20];
                loop {
                    match file.read(&mut buffer)? {
                        0 => return Ok(hash.finalize()),
                        read => hash.update(&buffer[..read]),
                    }
                }
            })
            .collect::<Result<_, _>>()
            .map_err(FormatError::io(path))?;
        all.update(size.to_le_bytes());
        digests.iter().for_each(|digest| all.update(digest));
        bytes += size;
    }
    Ok(json!({ "bytes": bytes, "sha256": hexadecimal(&all.finalize()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_and_the_place_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut bytes = vec![1u8; PIECE as usize + 5];
        fs::write(file("a"), &bytes).unwrap();
        fs::write(file("b"), &bytes).unwrap();
        let of = |name: &str| of_files(&[file(name)]).unwrap();
        assert_eq!(of("a"), of("b"));
        for changed in [0, PIECE as usize - 1, PIECE as usize, PIECE as usize + 4] {
            bytes[changed] = 2;
            fs::write(file("b"), &bytes).unwrap();
            assert_ne!(of("a"), of("b"), "byte {changed}");
            bytes[changed] = 1;
        }
        bytes.pop();
        fs::write(file("b"), &bytes).unwrap();
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn a_configuration_is_compared_by_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let file = folder.path().join("c.json");
            fs::write(&file, text).unwrap();
            of_json(&file).unwrap()
        };
        assert_eq!(of("{\"a\": 1.0}"), of("{\n\"a\":1.0}"));
        assert_ne!(of("{\"a\": 1.0}"), of("{\"a\": 2.0}"));
    }
}
