//! Sets of files: the values of `data.train` and `data.eval`.

use super::{
    ConfigError,
    keys::{KEYS, Key, Kind, SET_KEYS},
    read::{Place, Text, one},
    suggestion::nearest,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tightrope_data::{Amount, Columns, DataOptions, FileSet, Format, TrainOn};
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// Files with their own options: a table `[[data.train]]` or `[[data.eval]]`, or the paths that are
/// given in its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct SetSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub path: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_on: Option<TrainOn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
}

impl SetSection {
    /// One set without a name, with the options of all data.
    pub fn of(path: Vec<PathBuf>) -> Vec<Self> {
        vec![Self {
            path,
            ..Self::default()
        }]
    }

    /// The set with the options that it does not replace.
    pub fn with(&self, options: DataOptions) -> FileSet {
        let weight = self.weight.map_or(Amount::default(), Amount::Weight);
        FileSet {
            name: self.name.clone(),
            paths: self.path.clone(),
            amount: self.samples.map_or(weight, Amount::Samples),
            options: DataOptions {
                format: self.format.unwrap_or(options.format),
                columns: self.columns.clone().unwrap_or(options.columns),
                train_on: self.train_on.unwrap_or(options.train_on),
                chat_template: self.chat_template.clone().or(options.chat_template),
                ..options
            },
        }
    }
}

/// Reads paths, or tables of them, as an array of tables; adds the places of their keys to `places`.
pub(super) fn read(
    text: &Text<'_>,
    path: &str,
    place: &Place,
    value: &Spanned<DeValue<'_>>,
    places: &mut BTreeMap<String, Place>,
) -> Result<Value, ConfigError> {
    let prefix = format!("{path}[");
    places.retain(|key, _| !key.starts_with(&prefix));
    let tables: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
        DeValue::Table(_) => vec![value],
        DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
            items.iter().collect()
        }
        _ => {
            let Value::Array(paths) =
                one(text, path, Kind::Paths, place, value).map_err(|error| of_sets(error, path))?
            else {
                return Ok(Value::Array(Vec::new()));
            };
            let set = Table::from_iter([("path".to_owned(), Value::Array(paths.clone()))]);
            let sets = if paths.is_empty() {
                Vec::new()
            } else {
                vec![Value::Table(set)]
            };
            return Ok(Value::Array(sets));
        }
    };
    let mut sets = Vec::with_capacity(tables.len());
    for (index, item) in tables.into_iter().enumerate() {
        let name = format!("{path}[{index}]");
        let place = text.place(item.span());
        let DeValue::Table(table) = item.get_ref() else {
            return Err(ConfigError::WrongType {
                place,
                key: name,
                expected: "a table like the others: { path = \"…\" }".to_owned(),
                got: item.get_ref().type_str().to_owned(),
            });
        };
        let set = set(text, path, &name, &place, table, places)?;
        let same = |other: &Value| other.get("name") == set.get("name");
        if let Some(own) = set.get("name").filter(|_| sets.iter().any(same)) {
            let message =
                format!("two sets of `{path}` have the name {own}; give one another `name`");
            return Err(ConfigError::Conflict { place, message });
        }
        sets.push(Value::Table(set));
    }
    Ok(Value::Array(sets))
}

/// The error with the values that a list of sets may have.
fn of_sets(error: ConfigError, path: &str) -> ConfigError {
    match error {
        ConfigError::WrongType {
            place, key, got, ..
        } if key == path => ConfigError::WrongType {
            place,
            key,
            expected: Kind::Sets.expected(),
            got,
        },
        other => other,
    }
}

fn set(
    text: &Text<'_>,
    path: &str,
    name: &str,
    place: &Place,
    table: &DeTable<'_>,
    places: &mut BTreeMap<String, Place>,
) -> Result<Table, ConfigError> {
    let mut set = Table::new();
    for (key, value) in table {
        let place = text.place(key.span());
        let own = key.get_ref().as_ref();
        let path_of_key = format!("{name}.{own}");
        let Some(known) = SET_KEYS.iter().find(|known| known.name == own) else {
            return Err(ConfigError::UnknownKey {
                place,
                key: path_of_key,
                hint: hint(path, own),
            });
        };
        let value = one(text, &path_of_key, known.kind, &place, value)?;
        places.insert(path_of_key, place);
        set.insert(own.to_owned(), value);
    }
    let conflict = |key: &str, message: String| {
        let place = places
            .get(&format!("{name}.{key}"))
            .unwrap_or(place)
            .clone();
        Err(ConfigError::Conflict { place, message })
    };
    let files = set
        .get("path")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if files.is_empty() {
        return conflict(
            "path",
            format!("`{name}.path` is missing: name the files of the set"),
        );
    }
    let twice = |(index, file): &(usize, &Value)| files[..*index].contains(file);
    if let Some((_, file)) = files.iter().enumerate().find(twice) {
        let message = format!("`{name}.path` names {file} twice; `weight = 2` takes records twice");
        return conflict("path", message);
    }
    let of_hub = |file: &Value| file.as_str().is_some_and(|file| file.starts_with("hub:"));
    if let Some(key) = ["subset", "split"]
        .into_iter()
        .find(|key| set.contains_key(*key))
        && !files.iter().any(of_hub)
    {
        let message = format!(
            "`{name}.{key}` is of data sets of the hub (`path = \"hub:owner/name\"`), and this set is \
             of files"
        );
        return conflict(key, message);
    }
    if set.contains_key("weight") && set.contains_key("samples") {
        let message = format!("`{name}` has `weight` and `samples`; remove one");
        return conflict("samples", message);
    }
    let stem = files[0].as_str().map(stem).unwrap_or_default();
    set.entry("name").or_insert(Value::String(stem));
    Ok(set)
}

/// Name of a file without its endings.
fn stem(path: &str) -> String {
    let id = path
        .strip_prefix("hub:")
        .and_then(|id| id.split('@').next());
    let path = id.unwrap_or(path);
    let name = Path::new(path)
        .file_name()
        .unwrap_or(path.as_ref())
        .to_string_lossy();
    let end = name.find('.').filter(|end| *end > 0).unwrap_or(name.len());
    name[..end].to_owned()
}

/// Suggestion for an unknown key of a set.
fn hint(path: &str, name: &str) -> String {
    if KEYS
        .iter()
        .any(|key| key.section == "data" && key.name == name)
    {
        return format!(
            "`{name}` is the same for all sets: it belongs in [data], before [[{path}]]"
        );
    }
    let names = || SET_KEYS.iter().map(|key: &Key| key.name);
    match nearest(name, names()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("a set has {}", names().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests;
