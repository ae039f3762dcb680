//! Python's output: `str()`, `repr()`, `json.dumps` and `strftime` of template values.

use std::fmt::Write;

use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::limits;

/// Marks a detail as the words of a template's `raise_exception`.
const RAISED: &str = "\u{1}raised: ";

pub(super) fn is_raised(detail: &str) -> bool {
    detail.starts_with(RAISED)
}

pub(super) fn raised(detail: &str) -> &str {
    detail.strip_prefix(RAISED).unwrap_or(detail)
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Gives an environment the functions of Transformers, `tojson`, and Python's way of printing.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_formatter(|out, state, value| {
        match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&repr(state, value)?),
        }
        .map_err(Error::from)
    });
    environment.add_function(
        "raise_exception",
        |state: &State, message: Value| -> Result<Value, Error> {
            Err(invalid(format!("{RAISED}{}", str_of(state, &message)?)))
        },
    );
    environment.add_filter("tojson", tojson);
    super::filters::install(environment);
}

/// JSON as template values; the order of keys is kept. `dictionary` makes the value for an object.
pub(super) fn value_of(json: &serde_json::Value, dictionary: fn(Value) -> Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(x) => Value::from(*x),
        Json::Number(x) => match (x.as_i64(), x.as_u64()) {
            (Some(x), _) => Value::from(x),
            (_, Some(x)) => Value::from(x),
            _ => Value::from(x.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(x) => Value::from(x.as_str()),
        Json::Array(x) => x.iter().map(|v| value_of(v, dictionary)).collect(),
        Json::Object(x) => {
            let pairs = x.iter().map(|(k, v)| (k.as_str(), value_of(v, dictionary)));
            dictionary(Value::from_pairs(pairs))
        }
    }
}

/// Approximate length of the text of JSON.
pub(super) fn size_of(json: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    8 + match json {
        Json::String(x) => x.len(),
        Json::Array(x) => x.iter().map(size_of).sum(),
        Json::Object(x) => x.iter().map(|(k, v)| k.len() + size_of(v)).sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
    }
}

/// White space as in Python's `str.strip` (a little more than Unicode's).
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str(value)`.
pub(super) fn str_of(state: &State, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => repr(state, value),
    }
}

/// `str(value)` of an operand of `~`.
pub(super) fn text(state: &State, value: Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(_) => Ok(value),
        None => Ok(Value::from(str_of(state, &value)?)),
    }
}

/// `repr(value)`; empty for an undefined value, as in Jinja.
pub(super) fn repr(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_repr(state, value, 0, &mut out)?;
    Ok(out)
}

fn write_repr(state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > limits::DEPTH {
        return Err(limits::too_deep());
    }
    let before = out.len();
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool if value.is_true() => out.push_str("True"),
        ValueKind::Bool => out.push_str("False"),
        ValueKind::Number => out.push_str(&number(value, "inf", "nan")),
        ValueKind::String => out.push_str(&quote(value.as_str().unwrap_or_default())),
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(state, &key, depth + 1, out)?;
                out.push_str(": ");
                let item = value.get_item(&key).unwrap_or_default();
                write_repr(state, &item, depth + 1, out)?;
            }
            out.push('}');
            return state.consume_fuel(1);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.downcast_object_ref::<minijinja::value::Tuple>();
            let (open, close) = match tuple {
                Some(_) if value.len() == Some(1) => ("(", ",)"),
                Some(_) => ("(", ")"),
                None => ("[", "]"),
            };
            out.push_str(open);
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(state, &item, depth + 1, out)?;
            }
            out.push_str(close);
            return state.consume_fuel(1);
        }
        _ => out.push_str(&value.to_string()),
    }
    match depth {
        // The engine itself counts written text and the results of filters.
        0 => Ok(()),
        _ => state.consume_fuel(1 + (out.len() - before) as u64 / 64),
    }
}

/// A string literal as Python prints it: in single quotes, unless the string has single quotes and
/// no double quotes.
fn quote(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (0x7f..=0xa0).contains(&(c as u32)) || c == '\u{ad}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{3000}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// An integer in full, a float in Python's shortest form.
fn number(value: &Value, infinity: &str, nan: &str) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(x) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    if x.is_nan() {
        return nan.to_owned();
    }
    if x.is_infinite() {
        let sign = if x < 0.0 { "-" } else { "" };
        return format!("{sign}{infinity}");
    }
    float(x)
}

/// `repr` of a finite float: shortest digits, with an exponent outside 1e-4 ≤ |x| < 1e16.
pub(super) fn float(x: f64) -> String {
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `json.dumps(value, ensure_ascii, indent, separators, sort_keys)` with Python's defaults, except
/// `ensure_ascii=False`.
fn tojson(state: &State, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    let indent = match indent {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => match indent.as_usize().unwrap_or(0) {
                spaces @ 0..=limits::INDENT => " ".repeat(spaces),
                spaces => {
                    return Err(invalid(format!(
                        "tojson: an indent of {spaces}; {} is the most",
                        limits::INDENT
                    )));
                }
            },
        }),
    };
    let separators: Option<Value> = kwargs.get("separators")?;
    let separators = separators.filter(|s| !s.is_none());
    let (item, key) = match separators {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => (
            str_of(state, &pair.get_item_by_index(0)?)?,
            str_of(state, &pair.get_item_by_index(1)?)?,
        ),
    };
    let dumps = Dumps {
        state,
        indent,
        item,
        key,
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    dumps.value(value, 0, &mut out)?;
    Ok(Value::from(out))
}

struct Dumps<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    indent: Option<String>,
    item: String,
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Dumps<'_, '_, '_> {
    fn value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > limits::DEPTH {
            return Err(limits::too_deep());
        }
        let before = out.len();
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, "Infinity", "NaN")),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort_by_cached_key(|key| str_of(self.state, key).unwrap_or_default());
                }
                let items = keys
                    .into_iter()
                    .map(|k| (Some(k.clone()), value.get_item(&k)));
                return self.items('{', '}', items, depth, out);
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|v| (None, Ok(v)));
                return self.items('[', ']', items, depth, out);
            }
            other => return Err(invalid(format!("{other} is not JSON serializable"))),
        }
        self.state.consume_fuel((out.len() - before) as u64 / 64)
    }

    fn items(
        &self,
        open: char,
        close: char,
        items: impl Iterator<Item = (Option<Value>, Result<Value, Error>)>,
        depth: usize,
        out: &mut String,
    ) -> Result<(), Error> {
        out.push(open);
        let mut empty = true;
        for (key, value) in items {
            if !empty {
                out.push_str(&self.item);
            }
            empty = false;
            self.new_line(depth + 1, out)?;
            if let Some(key) = key {
                // json.dumps turns other keys into the text of their JSON.
                match key.as_str() {
                    Some(text) => self.string(text, out),
                    None => {
                        out.push('"');
                        self.value(&key, depth, out)?;
                        out.push('"');
                    }
                }
                out.push_str(&self.key);
            }
            self.value(&value?, depth + 1, out)?;
        }
        if !empty {
            self.new_line(depth, out)?;
        }
        out.push(close);
        self.state.consume_fuel(1)
    }

    fn new_line(&self, depth: usize, out: &mut String) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            let spaces = (indent.len() * depth) as u64;
            self.state.consume_fuel(1 + spaces / 64)?;
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// `datetime.strftime`.
pub(super) fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(invalid(format!(
            "strftime_now: unknown directive in {format:?}"
        )));
    }
    let mut out = String::new();
    write!(out, "{}", now.format_with_items(items.into_iter()))
        .map_err(|_| invalid(format!("strftime_now: {format:?} needs a time zone")))?;
    Ok(out)
}
