//! Names that the columns of a file have, for the keys that the readers know.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::advice::list;
use crate::error::{DataError, Key, KeyPath, RowProblem};
use crate::source::RawRow;

/// Keys of a row that a column can be named for.
const OF_ROWS: [&str; 29] = [
    "text",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "history",
    "messages",
    "conversations",
    "system",
    "tools",
    "functions",
    "chat_template_kwargs",
    "chosen",
    "rejected",
    "label",
    "prompt_ids",
    "completion_ids",
    "chosen_ids",
    "rejected_ids",
    "input_ids",
    "labels",
    "attention_mask",
    "position_ids",
    "seq_lengths",
    "completion_mask",
    "assistant_masks",
    "assistant_mask",
    "loss_mask",
];

/// Keys of a message that can have another name.
const OF_MESSAGES: [&str; 9] = [
    "role",
    "content",
    "from",
    "value",
    "name",
    "tool_calls",
    "reasoning_content",
    "train",
    "weight",
];

/// Keys of a row whose values are messages.
const MESSAGES: [&str; 6] = [
    "messages",
    "conversations",
    "prompt",
    "completion",
    "chosen",
    "rejected",
];

/// The column of each key that has another name in the files: `prompt = "question"` reads `prompt`
/// from the column `question`. `role = "speaker"` does so in every message.
///
/// A column of the file that has the name of a key with another column is not used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Columns(BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for Columns {
    type Error = String;

    /// Checks that every key is known, and that no column is read as two keys.
    fn try_from(columns: BTreeMap<String, String>) -> Result<Self, String> {
        let known = || OF_ROWS.iter().chain(&OF_MESSAGES);
        for (index, (key, column)) in columns.iter().enumerate() {
            if !known().any(|name| name == key) {
                let names =
                    |names: &[&str]| list(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
                return Err(format!(
                    "`{key}` is no key of a record; the keys of records are {}; those of messages {}",
                    names(&OF_ROWS),
                    names(&OF_MESSAGES)
                ));
            }
            if column.is_empty() {
                return Err(format!("the column of `{key}` has no name"));
            }
            let same = |(other, name): &(&String, &String)| {
                *name == column && of_message(other) == of_message(key)
            };
            if let Some((other, _)) = columns.iter().take(index).find(same) {
                return Err(format!(
                    "`{other}` and `{key}` are both to be read from `{column}`"
                ));
            }
        }
        Ok(Self(columns))
    }
}

fn of_message(key: &str) -> bool {
    OF_MESSAGES.contains(&key)
}

impl Columns {
    /// Whether every key has its own name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys with their columns, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, column)| (key.as_str(), column.as_str()))
    }

    /// Column of a key, in rows or in messages.
    fn column<'a>(&'a self, key: &'a str, in_message: bool) -> &'a str {
        let column = self.0.get(key).filter(|_| of_message(key) == in_message);
        column.map_or(key, String::as_str)
    }

    /// Whether a name in a file is that of a column, of a key without a column, or neither.
    fn key_of(&self, name: &str, in_message: bool) -> Option<&str> {
        let mut own = self
            .0
            .iter()
            .filter(|(key, _)| of_message(key) == in_message);
        own.find(|(_, column)| *column == name)
            .map(|(key, _)| key.as_str())
    }

    fn renames_messages(&self) -> bool {
        self.0.keys().any(|key| of_message(key))
    }

    /// Gives the columns of a row the names of their keys.
    pub(crate) fn apply(&self, row: Map<String, Value>) -> Renamed {
        let mut renamed = Renamed::default();
        if self.is_empty() {
            renamed.fields = row;
            return renamed;
        }
        renamed.fields = self.rename(row, "", &mut renamed.found, &mut renamed.displaced);
        if !self.renames_messages() {
            return renamed;
        }
        for list in MESSAGES {
            let Some(value) = renamed.fields.get_mut(list) else {
                continue;
            };
            // In CSV, messages are JSON as text.
            let parsed = value
                .as_str()
                .filter(|text| text.trim_start().starts_with(['[', '{']));
            if let Some(parsed) = parsed.and_then(|text| serde_json::from_str(text).ok()) {
                *value = parsed;
            }
            let messages = match value {
                Value::Array(messages) => messages.as_mut_slice(),
                message => std::slice::from_mut(message),
            };
            let inside = format!("{}[].", self.column(list, false));
            for message in messages {
                if let Value::Object(message) = message {
                    let (found, displaced) = (&mut renamed.found, &mut renamed.displaced);
                    *message = self.rename(std::mem::take(message), &inside, found, displaced);
                }
            }
        }
        renamed
    }

    fn rename(
        &self,
        fields: Map<String, Value>,
        inside: &str,
        found: &mut u64,
        displaced: &mut Vec<String>,
    ) -> Map<String, Value> {
        let in_message = !inside.is_empty();
        let mut renamed = Map::with_capacity(fields.len());
        for (name, value) in fields {
            match self.key_of(&name, in_message) {
                Some(key) => {
                    let index = self
                        .0
                        .keys()
                        .position(|known| known == key)
                        .unwrap_or_default();
                    *found |= 1 << index;
                    renamed.insert(key.to_owned(), value);
                }
                None if self.column(&name, in_message) == name => drop(renamed.insert(name, value)),
                None if value.is_null() => {}
                None => {
                    let name = format!("{inside}{name}");
                    if !displaced.contains(&name) {
                        displaced.push(name);
                    }
                }
            }
        }
        renamed
    }

    /// Which columns the rows have, as in [`Renamed::found`], and the names in them.
    pub(crate) fn look(&self, rows: &[RawRow], path: &Path) -> (u64, Vec<String>) {
        let (mut found, mut saw) = (0, Vec::new());
        if self.is_empty() {
            return (found, saw);
        }
        for row in rows.iter().filter_map(|row| row.parse(path).ok()) {
            self.names_in(&row, &mut saw);
            found |= self.apply(row.into_owned()).found;
        }
        (found, saw)
    }

    /// The error that no row has one of the columns.
    pub(crate) fn absent(&self, found: u64, path: &Path, saw: &[String]) -> Option<DataError> {
        let mut all = self.iter().enumerate();
        let (_, (key, column)) = all.find(|(index, _)| found & (1 << index) == 0)?;
        Some(DataError::NoColumn {
            path: path.to_owned(),
            key: key.to_owned(),
            column: column.to_owned(),
            saw: saw.to_vec(),
        })
    }

    /// Names in a row that a column can have: those of the row, and of its messages if the keys of
    /// messages have other names.
    fn names_in(&self, row: &Map<String, Value>, names: &mut Vec<String>) {
        let mut add = |name: String| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        for (name, value) in row {
            add(name.clone());
            let messages = value.as_array().filter(|_| self.renames_messages());
            for message in messages.into_iter().flatten().filter_map(Value::as_object) {
                message
                    .keys()
                    .for_each(|key| add(format!("{name}[].{key}")));
            }
        }
    }

    /// The problem with the names that the file has.
    pub(crate) fn in_file(&self, problem: RowProblem) -> RowProblem {
        if self.is_empty() {
            return problem;
        }
        let mut problem = problem;
        if let RowProblem::Missing { key, saw } = &mut problem {
            let in_message = key.0.len() > 1;
            for name in saw {
                *name = self.column(name, in_message).to_owned();
            }
        }
        problem.with_key(|path| self.path_in_file(path))
    }

    fn path_in_file(&self, path: &KeyPath) -> KeyPath {
        let holds =
            matches!(path.0.first(), Some(Key::Name(name)) if MESSAGES.contains(&name.as_str()));
        let mut names = 0;
        let steps = path.0.iter().map(|step| match step {
            Key::Index(_) => step.clone(),
            Key::Name(name) => {
                names += 1;
                match names {
                    1 => Key::Name(self.column(name, false).to_owned()),
                    2 if holds => Key::Name(self.column(name, true).to_owned()),
                    _ => step.clone(),
                }
            }
        });
        KeyPath(steps.collect())
    }

    /// A key that was not used, such as `prompt[].name`, with the names that the file has.
    pub(crate) fn name_in_file(&self, unused: String) -> String {
        if self.is_empty() {
            return unused;
        }
        let (list, rest) = match unused.find(['[', '.']) {
            None => return self.column(&unused, false).to_owned(),
            Some(end) => unused.split_at(end),
        };
        let own = self.column(list, false);
        match rest.strip_prefix("[].") {
            Some(key) => format!("{own}[].{}", self.column(key, true)),
            None => format!("{own}{rest}"),
        }
    }
}

/// A row whose columns have the names of their keys.
#[derive(Debug, Default)]
pub(crate) struct Renamed {
    pub fields: Map<String, Value>,
    /// A bit for each key with a column, in the order of [`Columns::iter`]: whether the row has the
    /// column.
    pub found: u64,
    /// Columns with a value whose names are those of keys that are read from other columns.
    pub displaced: Vec<String>,
}
