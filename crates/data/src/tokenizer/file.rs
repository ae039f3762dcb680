//! Checks `tokenizer.json` before its library builds it: files on which the library would abort, or
//! tokenize at random, are refused, and panics become errors.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::DataError;
use crate::guard::guarded;

/// Larger files of a tokenizer are refused; the largest known have 35 MB.
const MAX_BYTES: u64 = 512 << 20;

/// A tokenizer from `tokenizer.json`.
pub(super) fn load(path: &Path) -> Result<tokenizers::Tokenizer, DataError> {
    let bytes = read(path)?.ok_or_else(|| absent(path))?;
    let outline: Outline = serde_json::from_slice(&bytes).map_err(|e| json(path, &e))?;
    outline.check().map_err(|message| wrong(path, message))?;
    match guarded(|| tokenizers::Tokenizer::from_bytes(&bytes)) {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(wrong(path, error.to_string())),
        Err(panic) => Err(wrong(path, panicked(&panic))),
    }
}

/// The JSON object in a file, if the file exists.
pub(super) fn object(path: &Path) -> Result<Option<Map<String, Value>>, DataError> {
    let bytes = read(path)?;
    let object = bytes.map(|bytes| serde_json::from_slice(&bytes));
    object.transpose().map_err(|e| json(path, &e))
}

/// Error about a file with wrong content.
pub(super) fn wrong(path: &Path, message: impl Into<String>) -> DataError {
    DataError::TokenizerFile {
        path: path.to_owned(),
        message: message.into(),
    }
}

/// Message about a tokenizer whose library panics.
pub(super) fn panicked(panic: &str) -> String {
    format!("damaged, or of a kind that the tokenizers library cannot use; it says: {panic}")
}

fn json(path: &Path, error: &serde_json::Error) -> DataError {
    let hint = match error.is_eof() {
        true => "; the file is cut off, download it again",
        false => "",
    };
    wrong(path, format!("{error}{hint}"))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(wrong(path, "not a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io(path)(error)),
    }
    let file = File::open(path).map_err(DataError::io(path))?;
    let mut bytes = Vec::new();
    let mut limited = file.take(MAX_BYTES + 1);
    limited
        .read_to_end(&mut bytes)
        .map_err(DataError::io(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        let limit = MAX_BYTES >> 20;
        return Err(wrong(
            path,
            format!("larger than {limit} MiB, no tokenizer is"),
        ));
    }
    if bytes.starts_with(b"version https://git-lfs") {
        let message = "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, \
                       or download the file again";
        return Err(wrong(path, message));
    }
    Ok(Some(bytes))
}

fn absent(path: &Path) -> DataError {
    let folder = path.parent().unwrap_or(path);
    let others = ["tokenizer.model", "tekken.json", "vocab.json", "vocab.txt"];
    let other = others.iter().find(|name| folder.join(name).exists());
    let message = match other {
        Some(other) => format!(
            "not found; Transformers makes it from the {other} beside it: python3 -c 'from \
             transformers import AutoTokenizer as T; T.from_pretrained(\"{0}\").save_pretrained(\"{0}\")'",
            folder.display()
        ),
        None => "not found; put the tokenizer's file of that name there".to_owned(),
    };
    DataError::NoTokenizer {
        path: path.to_owned(),
        message,
    }
}

/// Parts that are checked; the vocabulary is skipped.
#[derive(Deserialize)]
struct Outline {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    dropout: Option<f64>,
}

impl Outline {
    fn check(&self) -> Result<(), String> {
        let dropout = self.model.as_ref().and_then(|model| model.dropout);
        if let Some(dropout) = dropout.filter(|&dropout| dropout != 0.0) {
            return Err(format!(
                "`model.dropout` is {dropout}: the same text would get other tokens each time, in \
                 Transformers too; set it to null"
            ));
        }
        let parts = [&self.normalizer, &self.pre_tokenizer, &self.decoder];
        parts.into_iter().flatten().try_for_each(check_part)
    }
}

/// Searches for parts that would crash the library, at any depth.
fn check_part(part: &Value) -> Result<(), String> {
    match part {
        Value::Array(parts) => parts.iter().try_for_each(check_part),
        Value::Object(fields) => {
            if let Some(Value::String(map)) = fields.get("precompiled_charsmap") {
                check_characters_map(map)?;
            }
            fields.values().try_for_each(check_part)
        }
        _ => Ok(()),
    }
}

/// The library allocates as much as the first four bytes claim.
fn check_characters_map(base64: &str) -> Result<(), String> {
    let digit = |character: u8| match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let first = base64.bytes().take(6).map_while(digit);
    let bits = first.fold(0_u64, |bits, digit| (bits << 6) | u64::from(digit));
    let claimed = ((bits >> 4) as u32).swap_bytes();
    let held = base64.len() / 4 * 3;
    match base64.len() >= 8 && (claimed as usize) < held {
        true => Ok(()),
        false => Err(format!(
            "`precompiled_charsmap` claims a table of {claimed} bytes and holds {held}: damaged"
        )),
    }
}
