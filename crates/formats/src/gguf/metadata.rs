//! Metadata of a GGUF file, read by key.

use super::{List, Value};
use crate::FormatError;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Elements of a list: ten times those of the largest vocabulary and its merges.
const LONGEST_LIST: usize = 1 << 22;

/// The metadata of a file; an error of its readers names file and key.
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

    /// The value of a key, whatever it is.
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

    /// What `read` makes of a value; it returns `None` for what is not as `expected`.
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

    /// Text; `None` if there is no such key.
    pub fn text(&self, key: &str) -> Result<Option<&str>, FormatError> {
        self.read(key, "text", Value::as_text)
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A token id.
    pub fn id(&self, key: &str) -> Result<Option<u32>, FormatError> {
        self.read(key, "a token id", Value::as_id)
    }

    /// A list; `one` returns `None` for elements of another type. Lists of more than four million
    /// elements are refused.
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
