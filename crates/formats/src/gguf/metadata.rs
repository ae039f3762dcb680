//! Reads metadata of a GGUF file by key.

use super::{List, Value};
use crate::FormatError;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Largest number of elements in a list: ten times the largest vocabulary with its merges.
const LONGEST_LIST: usize = 1 << 22;

/// Metadata of a file; the errors of its readers name file and key.
#[derive(Clone, Debug)]
pub struct Metadata {
    path: PathBuf,
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(path: &Path, entries: BTreeMap<String, Value>) -> Self {
        let path = path.to_path_buf();
        Self { path, entries }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Value of a key, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Every key with its value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// An error about a key.
    pub fn error(&self, key: &str, reason: impl Into<String>) -> FormatError {
        FormatError::Metadata {
            file: self.path.clone(),
            key: key.to_string(),
            reason: reason.into(),
        }
    }

    /// Applies `read` to a value; `read` returns `None` for a value that is not `expected`.
    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wrong = || self.error(key, format!("expected {expected}"));
        read(value).map(Some).ok_or_else(wrong)
    }

    /// Reads a text; `None` if the key does not exist.
    pub fn text(&self, key: &str) -> Result<Option<&str>, FormatError> {
        self.read(key, "text", Value::as_text)
    }

    /// Reads a truth value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// Reads a token id.
    pub fn id(&self, key: &str) -> Result<Option<u32>, FormatError> {
        self.read(key, "a token id", Value::as_id)
    }

    /// Reads a list; `one` returns `None` for elements of another type. Lists of more than four
    /// million elements are refused.
    pub fn list<T>(
        &self,
        key: &str,
        one: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, FormatError> {
        let all = |list: &List| list.iter().map(|value| one(&value)).collect();
        self.read(
            key,
            "a list of one type, not too long",
            |value| match value {
                Value::List(list) if list.len() <= LONGEST_LIST => all(list),
                _ => None,
            },
        )
    }
}
