//! Turns TOML text into checked values. The table of keys finds unknown keys, wrong types and
//! relative paths here, while the place in the text is still known.

use super::{
    ConfigError,
    keys::{KEYS, Key, Kind, SECTIONS},
    sets,
    suggestion::{hint, nearest},
};
use crate::paths::{self, looks_local};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// Place where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file; the line is counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// On the command line.
    Set(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(f, "{}:{line}", path.display()),
            // An address may hold a password.
            Place::Set(text) if text.split('"').any(|part| paths::address(part).is_some()) => {
                write!(f, "--set {}", text.split(" = ").next().unwrap_or(text))
            }
            Place::Set(text) => write!(f, "--set {text}"),
        }
    }
}

/// Place of each key, by its path. It does not affect a run, so all values are equal.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Place>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Places {
    /// Place of a key, if it was written.
    pub fn of(&self, key: &str) -> Option<&Place> {
        self.0.get(key)
    }
}

/// Values and their places by the path of the key.
#[derive(Debug, Default)]
pub(super) struct Values {
    values: BTreeMap<String, (Value, Place)>,
    /// Places of keys inside values, such as `data.train[0].columns`, and of entries of tables.
    inner: BTreeMap<String, Place>,
    sections: Vec<String>,
}

/// A text to read, and the base of its paths.
pub(super) struct Text<'a> {
    pub text: &'a str,
    /// The file, or `None` for `--set`.
    pub path: Option<&'a Path>,
    pub base: &'a Path,
}

impl Text<'_> {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        match self.path {
            None => Place::Set(self.text.to_owned()),
            Some(path) => Place::File {
                path: path.to_owned(),
                line: 1 + self.text.as_bytes()[..span.start.min(self.text.len())]
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count(),
            },
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim().replace('\n', "; ");
        ConfigError::Syntax {
            message: self.without_quotes(span.start).unwrap_or(message),
            place: self.place(span),
        }
    }

    /// Advice, if the line at `offset` sets a key to text without quotes.
    fn without_quotes(&self, offset: usize) -> Option<String> {
        let start = self
            .text
            .get(..offset)?
            .rfind('\n')
            .map_or(0, |end| end + 1);
        let line = self.text[start..].lines().next()?;
        let (key, value) = line.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        let is_text = value.starts_with(|c: char| c.is_alphabetic() || "./~".contains(c))
            && !value.contains(['"', '\'', '#'])
            && DeValue::parse(value).is_err();
        is_text.then(|| format!("text needs quotes: {key} = \"{value}\""))
    }
}

impl Values {
    /// Reads `text` over the present values; later texts win.
    pub(super) fn read(&mut self, text: &Text<'_>) -> Result<(), ConfigError> {
        let document = DeTable::parse(text.text).map_err(|error| text.syntax(&error))?;
        for (name, value) in document.get_ref() {
            let place = text.place(name.span());
            let section = name.get_ref().as_ref();
            let is_section = !section.is_empty() && SECTIONS.iter().any(|(s, _)| *s == section);
            match (is_section, value.get_ref()) {
                (true, DeValue::Table(table)) => {
                    self.sections.push(section.to_owned());
                    for (name, value) in table {
                        let path = format!("{section}.{}", name.get_ref());
                        self.insert(text, &path, name.span(), value)?;
                    }
                }
                (true, other) => {
                    return Err(ConfigError::WrongType {
                        place,
                        key: section.to_owned(),
                        expected: format!("a section: write [{section}] on a line of its own"),
                        got: other.type_str().to_owned(),
                    });
                }
                (false, _) => self.insert(text, section, name.span(), value)?,
            }
        }
        Ok(())
    }

    fn insert(
        &mut self,
        text: &Text<'_>,
        path: &str,
        span: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        let place = text.place(span);
        let Some(key) = Key::find(path) else {
            return Err(ConfigError::UnknownKey {
                place,
                key: path.to_owned(),
                hint: hint(path),
            });
        };
        if let (Kind::Ranks | Kind::Scales, DeValue::Table(table)) = (key.kind, value.get_ref()) {
            self.inner.extend(table.keys().map(|name| {
                let entry = format!("{path}.{}", name.get_ref());
                (entry, text.place(name.span()))
            }));
        }
        let value = match key.kind {
            Kind::Sets => sets::read(text, path, &place, value, &mut self.inner)?,
            kind => one(text, path, kind, &place, value)?,
        };
        self.values.insert(path.to_owned(), (value, place));
        Ok(())
    }

    /// Place of a key, if it was written.
    pub(super) fn place(&self, path: &str) -> Option<&Place> {
        self.values.get(path).map(|(_, place)| place)
    }

    /// Places of all keys that were written.
    pub(super) fn places(&self) -> Places {
        let values = self.values.iter().map(|(key, (_, place))| (key, place));
        let all = values.chain(&self.inner);
        Places(
            all.map(|(key, place)| (key.clone(), place.clone()))
                .collect(),
        )
    }

    /// Value of a key, if it was written.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.values.get(path).map(|(value, _)| value)
    }

    /// Whether the section was written.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.sections.iter().any(|s| s == section)
    }

    /// All values as one table, with the defaults of unwritten keys, without the sections `absent`.
    pub(super) fn into_table(self, absent: &[&str]) -> Table {
        let mut table = Table::new();
        for (section, _) in SECTIONS.iter().filter(|(section, _)| !section.is_empty()) {
            if !absent.contains(section) {
                table.insert((*section).to_owned(), Value::Table(Table::new()));
            }
        }
        for key in KEYS {
            let value = match self.get(&key.path()) {
                Some(value) => value.clone(),
                None => match key.default {
                    Some(default) => default_value(default),
                    None => continue,
                },
            };
            let section = match key.section {
                "" => Some(&mut table),
                section => table.get_mut(section).and_then(Value::as_table_mut),
            };
            if let Some(section) = section {
                section.insert(key.name.to_owned(), value);
            }
        }
        table
    }
}

/// The value of a key in the form that its kind has.
pub(super) fn one(
    text: &Text<'_>,
    path: &str,
    kind: Kind,
    place: &Place,
    value: &Spanned<DeValue<'_>>,
) -> Result<Value, ConfigError> {
    let wrong = |got: String| ConfigError::WrongType {
        place: place.clone(),
        key: path.to_owned(),
        expected: kind.expected(),
        got,
    };
    let value = plain(&kind, value).ok_or_else(|| wrong(shown(value.get_ref())))?;
    let columns = columns(kind, &value);
    let columns = columns.map(|problem| format!("`{path}`: {problem}"));
    if let Some(message) = address(&kind, &value).or(columns) {
        let place = place.clone();
        return Err(ConfigError::Conflict { place, message });
    }
    let got = value.to_string();
    checked(&kind, value, text.base).ok_or_else(|| match kind {
        Kind::Choice(words) => match nearest(got.trim_matches('"'), words.iter().copied()) {
            Some(word) => wrong(format!("{got}; did you mean \"{word}\"?")),
            None => wrong(got),
        },
        _ => wrong(got),
    })
}

/// What is wrong with a table of columns.
fn columns(kind: Kind, value: &Value) -> Option<String> {
    let (Kind::Columns, Value::Table(table)) = (kind, value) else {
        return None;
    };
    let texts = table
        .iter()
        .map(|(key, column)| Some((key.clone(), column.as_str()?.to_owned())));
    let texts: BTreeMap<String, String> = texts.collect::<Option<_>>()?;
    tightrope_data::Columns::try_from(texts).err()
}

/// A default from the table of keys as a value.
fn default_value(text: &str) -> Value {
    let value = DeValue::parse(text).ok();
    value
        .and_then(|value| plain(&Kind::Text, &value))
        .expect("the defaults in the table of keys are TOML; a test reads them all")
}

/// A parsed value without its spans; `None` for numbers out of range. A table of patterns becomes
/// a list of pairs in the order of the text.
fn plain(kind: &Kind, value: &Spanned<DeValue<'_>>) -> Option<Value> {
    let inner = |value| plain(&Kind::Text, value);
    Some(match value.get_ref() {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(n) => Value::Integer(i64::from_str_radix(n.as_str(), n.radix()).ok()?),
        DeValue::Float(x) => Value::Float(x.as_str().parse().ok()?),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(inner).collect();
            Value::Array(items?)
        }
        DeValue::Table(table) if matches!(kind, Kind::Ranks | Kind::Scales) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(name, _)| name.span().start);
            let pair = |(name, value): (&Spanned<_>, _)| {
                let name: &Cow<'_, str> = name.get_ref();
                let pair = vec![Value::String(name.to_string()), inner(value)?];
                Some(Value::Array(pair))
            };
            let pairs: Option<Vec<_>> = entries.into_iter().map(pair).collect();
            Value::Array(pairs?)
        }
        DeValue::Table(table) => {
            let entries: Option<_> = table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), inner(value)?)))
                .collect();
            Value::Table(entries?)
        }
    })
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(x) => x.to_string(),
        other => other.type_str().to_owned(),
    }
}

/// Advice if the value of a path is an address.
fn address(kind: &Kind, value: &Value) -> Option<String> {
    match (kind, value) {
        (Kind::Path | Kind::Paths | Kind::Cache, Value::String(text)) => paths::address(text),
        (Kind::Template, Value::String(text)) if !is_inline(text) => paths::address(text),
        (Kind::Paths, Value::Array(items)) => items.iter().find_map(|item| address(kind, item)),
        _ => None,
    }
}

/// Whether the value of a template is the template itself, and not the path of a file.
fn is_inline(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The value in the form of its key, or `None` if it is of another kind.
fn checked(kind: &Kind, value: Value, base: &Path) -> Option<Value> {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    match (kind, value) {
        (Kind::Text | Kind::Template | Kind::Model | Kind::Path, value) if !is_text(&value) => None,
        (Kind::Text, value) => Some(value),
        (Kind::Cache, Value::String(text)) if ["auto", "off"].contains(&text.as_str()) => {
            Some(Value::String(text))
        }
        (Kind::Cache, Value::String(text)) if !["", "on"].contains(&&*text) => {
            Some(Value::String(join(base, &text)))
        }
        (Kind::Template, Value::String(text)) if is_inline(&text) => Some(Value::String(text)),
        (Kind::Template, Value::String(text)) => Some(Value::String(join(base, &text))),
        (Kind::Model, Value::String(text)) => {
            let path = join(base, &text);
            let exists = Path::new(&path).exists();
            Some(Value::String(match looks_local(&text) || exists {
                false => text,
                // Without `./` it would be read as a hub id.
                true if !exists && !looks_local(&path) => format!("./{path}"),
                true => path,
            }))
        }
        (Kind::Path, Value::String(text)) => Some(Value::String(join(base, &text))),
        (Kind::Paths, value) => {
            let paths = strings(value)?;
            let joined = paths.iter().map(|path| match path.starts_with("hub:") {
                true => Value::String(path.clone()),
                false => Value::String(join(base, path)),
            });
            Some(Value::Array(joined.collect()))
        }
        (Kind::Columns, Value::Table(table)) => table
            .values()
            .all(Value::is_str)
            .then_some(Value::Table(table)),
        (Kind::Targets | Kind::Modules, Value::String(text)) if !text.is_empty() => {
            Some(Value::String(text))
        }
        (Kind::Names, Value::Array(items)) if items.is_empty() => Some(Value::Array(items)),
        (Kind::Texts, value @ Value::Array(_)) => {
            let texts = strings(value)?.into_iter().map(Value::String);
            Some(Value::Array(texts.collect()))
        }
        (Kind::Descriptions, Value::Table(table)) => {
            let right = table.values().all(is_text);
            right.then_some(Value::Table(table))
        }
        (Kind::TokenIndices, Value::Array(items)) => checked(&Kind::Integers, items.into(), base),
        (Kind::TokenIndices, Value::Table(table)) => {
            let lists = table.into_iter().map(|(name, list)| {
                let list = list.is_array().then_some(list)?;
                Some((name, checked(&Kind::Integers, list, base)?))
            });
            let lists: toml::Table = lists.collect::<Option<_>>()?;
            (!lists.is_empty()).then_some(Value::Table(lists))
        }
        (Kind::Targets | Kind::Modules | Kind::Names, value @ Value::Array(_)) => {
            let modules = strings(value)?;
            let some = !modules.is_empty();
            some.then(|| Value::Array(modules.into_iter().map(Value::String).collect()))
        }
        (Kind::Integers, Value::Array(items)) => {
            let is_count = |item: &Value| item.as_integer().is_some_and(|n| n >= 0);
            let right = !items.is_empty() && items.iter().all(is_count);
            right.then_some(Value::Array(items))
        }
        (Kind::Ranks | Kind::Scales, Value::Array(pairs)) => {
            let checked = |pair| match (kind, pair) {
                (kind, Value::Array(pair)) => match (kind, <[Value; 2]>::try_from(pair).ok()?) {
                    (Kind::Ranks, [name, Value::Integer(n)]) if n >= 1 => {
                        Some(Value::Array(vec![name, Value::Integer(n)]))
                    }
                    (Kind::Scales, [name, value]) => {
                        let number = value.as_float();
                        let number = number.or_else(|| value.as_integer().map(|n| n as f64))?;
                        let right = number > 0.0 && number.is_finite();
                        right.then(|| Value::Array(vec![name, Value::Float(number)]))
                    }
                    _ => None,
                },
                _ => None,
            };
            let pairs: Option<Vec<_>> = pairs.into_iter().map(checked).collect();
            Some(Value::Array(pairs?))
        }
        (Kind::Integer(least), Value::Integer(n)) if n >= *least => Some(Value::Integer(n)),
        (Kind::Number(rule, _), Value::Float(x)) if rule(x) => Some(Value::Float(x)),
        (Kind::Number(rule, _), Value::Integer(n)) if rule(n as f64) => {
            Some(Value::Float(n as f64))
        }
        (Kind::Boolean, Value::Boolean(b)) => Some(Value::Boolean(b)),
        (Kind::Choice(words), Value::String(word)) if words.contains(&word.as_str()) => {
            Some(Value::String(word))
        }
        _ => None,
    }
}

pub(super) fn strings(value: Value) -> Option<Vec<String>> {
    let items = match value {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(items) => items,
        _ => return None,
    };
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        })
        .collect()
}

/// Resolves `path` from `base`; `~` is the home folder.
fn join(base: &Path, path: &str) -> String {
    // A TOML string is UTF-8; a base that is not UTF-8 is shown approximately when it fails to
    // open.
    let path = paths::join(base, Path::new(path));
    path.to_string_lossy().into_owned()
}
