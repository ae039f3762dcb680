//! Sections whose keys depend on a kind: each kind reads some keys, with defaults of its own, and
//! the others are refused.

use super::{ConfigError, KEYS, Key, read::Values};
use toml::Value;

/// A kind of what a section describes.
pub(super) struct Kind {
    /// Name in configurations.
    pub name: &'static str,
    /// Paths of the keys that this kind reads, with their defaults.
    pub reads: &'static [(&'static str, Preset)],
}

/// Default of a key.
#[derive(Clone, Copy)]
pub(super) enum Preset {
    Number(f64),
    Integer(i64),
    Word(&'static str),
    Flag(bool),
    Absent,
}

/// Names of kinds, for the table of keys.
pub(super) const fn names<const N: usize>(kinds: &[Kind; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = kinds[index].name;
        index += 1;
    }
    names
}

impl Preset {
    fn value(self) -> Option<Value> {
        Some(match self {
            Preset::Number(number) => Value::Float(number),
            Preset::Integer(number) => Value::Integer(number),
            Preset::Word(word) => Value::String(word.into()),
            Preset::Flag(flag) => Value::Boolean(flag),
            Preset::Absent => return None,
        })
    }
}

/// The kind that the values name; `usual` if they name none.
pub(super) fn kind<'a>(
    values: &Values,
    section: &str,
    kinds: &'a [Kind],
    usual: &'a Kind,
) -> &'a Kind {
    let written = values.get(&format!("{section}.kind"));
    let name = written.and_then(Value::as_str).unwrap_or(usual.name);
    let found = kinds.iter().find(|kind| kind.name == name);
    found.unwrap_or(usual)
}

/// Defaults of the keys that the kind reads; refuses those of `section` that it does not read, but
/// for those that every kind reads (`always`).
pub(super) fn derived(
    values: &Values,
    section: &str,
    kind: &Kind,
    always: &[&str],
) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let reads =
        |key: &str| always.contains(&key) || kind.reads.iter().any(|(read, _)| *read == key);
    refuse_unread(values, section, kind.name, reads, |_| "")?;
    let presets = kind.reads.iter();
    Ok(presets
        .filter_map(|(key, preset)| Some((*key, preset.value()?)))
        .collect())
}

/// Refuses the keys of `section` that its kind does not read; `why` may add a reason.
pub(super) fn refuse_unread(
    values: &Values,
    section: &str,
    kind: &str,
    reads: impl Fn(&str) -> bool,
    why: impl Fn(&str) -> &'static str,
) -> Result<(), ConfigError> {
    let named = format!("{section}.kind");
    let keys = KEYS.iter().filter(|key| key.section == section);
    for key in keys.map(Key::path).filter(|key| *key != named) {
        if reads(&key) {
            continue;
        }
        let why = why(&key);
        refuse(values, &key, || {
            format!(
                "`{key}` has no meaning with `{named}` = \"{kind}\"{why}; set another kind, or remove \
                 it"
            )
        })?;
    }
    Ok(())
}

/// Refuses a key if it was written.
pub(super) fn refuse(
    values: &Values,
    key: &str,
    message: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    match values.place(key) {
        None => Ok(()),
        Some(place) => Err(ConfigError::Conflict {
            place: place.clone(),
            message: message(),
        }),
    }
}
