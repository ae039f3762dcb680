//! Files that a run has left, without values that depend on clock and machine.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// Keys that depend on clock and machine.
const CLOCK: [&str; 3] = ["elapsed_s", "tokens_per_second", "peak_memory_bytes"];
/// File whose digest in a manifest depends on the clock, because its contents do.
const STATE: &str = "state.json";

/// Contents of all files below a folder, by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![String::new()];
        while let Some(prefix) = folders.pop() {
            for entry in fs::read_dir(folder.join(&prefix)).with_context(|| prefix.clone())? {
                let entry = entry?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    // An empty folder counts as left over, too.
                    files.insert(format!("{name}/"), Vec::new());
                    folders.push(name + "/");
                } else {
                    let bytes = fs::read(entry.path())?;
                    files.insert(name.clone(), timeless(&name, bytes));
                }
            }
        }
        Ok(Self(files))
    }

    /// Describes a difference from `other`, if there is one.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let missing = self.0.keys().find(|name| !other.0.contains_key(*name));
        let left = other.0.keys().find(|name| !self.0.contains_key(*name));
        let differs = self
            .0
            .iter()
            .find(|(name, bytes)| other.0.get(*name) != Some(bytes));
        match (missing, left, differs) {
            (Some(name), ..) => Some(format!("{name} is missing")),
            (_, Some(name), _) => Some(format!("{name} is left over")),
            (.., Some((name, _))) => Some(format!("{name} has other contents")),
            _ => None,
        }
    }
}

/// Contents without values that depend on the clock, if the file has any.
fn timeless(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    if !name.ends_with(".json") && !name.ends_with(".jsonl") {
        return bytes;
    }
    let values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
    let Ok(mut values) = values.collect::<Result<Vec<Value>, _>>() else {
        return bytes;
    };
    for value in &mut values {
        for key in CLOCK {
            value.as_object_mut().map(|object| object.remove(key));
        }
        if let Some(files) = value.get_mut("files").and_then(Value::as_object_mut) {
            files.remove(STATE);
        }
    }
    Value::Array(values).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_makes_no_difference_and_everything_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let read = |rows: &str, more: &[(&str, &str)]| {
            fs::create_dir_all(folder.path().join("a")).unwrap();
            fs::write(folder.path().join("a/metrics.jsonl"), rows).unwrap();
            for (name, text) in more {
                fs::write(folder.path().join(name), text).unwrap();
            }
            Files::read(folder.path()).unwrap()
        };
        let first = read("{\"loss\":1,\"elapsed_s\":2}\n{\"loss\":3}\n", &[]);
        let later = read("{\"loss\":1,\"elapsed_s\":4}\n{\"loss\":3}\n", &[]);
        assert_eq!(first.difference(&later), None);
        let other = read("{\"loss\":2}\n{\"loss\":3}\n", &[]);
        let words = "a/metrics.jsonl has other contents";
        assert_eq!(first.difference(&other).unwrap(), words);
        let more = read("", &[("a/.tmp", "x")]);
        assert_eq!(first.difference(&more).unwrap(), "a/.tmp is left over");
        assert_eq!(more.difference(&first).unwrap(), "a/.tmp is missing");
    }
}
