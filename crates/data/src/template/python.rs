//! What Python prints: `str()`, `repr()`, `json.dumps` and `strftime` of template values.

use std::fmt::Write;

use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

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
    environment
        .set_formatter(|out, _state, value| write!(out, "{}", str_of(value)).map_err(Error::from));
    environment.add_function(
        "raise_exception",
        |message: Value| -> Result<Value, Error> {
            Err(invalid(format!("{RAISED}{}", str_of(&message))))
        },
    );
    environment.add_filter("tojson", tojson);
    super::filters::install(environment);
}

/// JSON as template values; the order of keys stays.
pub(super) fn value_of(json: &serde_json::Value) -> Value {
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
        Json::Array(x) => x.iter().map(value_of).collect(),
        Json::Object(x) => Value::from_pairs(x.iter().map(|(k, v)| (k.as_str(), value_of(v)))),
    }
}

/// White space as Python's `str.strip` has it (a little more than Unicode's).
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str(value)`.
pub(super) fn str_of(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => repr(value),
    }
}

/// `repr(value)`; nothing for an undefined value, which Jinja prints as such.
pub(super) fn repr(value: &Value) -> String {
    let items = |open: &str, close: &str| {
        let items: Vec<String> = value
            .try_iter()
            .into_iter()
            .flatten()
            .map(|v| repr(&v))
            .collect();
        format!("{open}{}{close}", items.join(", "))
    };
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool if value.is_true() => "True".to_owned(),
        ValueKind::Bool => "False".to_owned(),
        ValueKind::Number => number(value, "inf", "nan"),
        ValueKind::String => quote(value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            let entries = value.try_iter().into_iter().flatten().map(|key| {
                let item = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key), repr(&item))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        ValueKind::Seq
            if value
                .downcast_object_ref::<minijinja::value::Tuple>()
                .is_some() =>
        {
            let one = value.len() == Some(1);
            items("(", if one { ",)" } else { ")" })
        }
        ValueKind::Seq => items("[", "]"),
        _ => value.to_string(),
    }
}

/// A string literal as Python prints it: single quotes unless only they occur in it.
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

/// An integer in full, a float by Python's shortest repr.
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

/// `repr` of a finite float: shortest digits, exponents outside 1e-4 ≤ |x| < 1e16.
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

/// `json.dumps(value, ensure_ascii, indent, separators, sort_keys)`, Python's defaults except
/// `ensure_ascii=False`.
fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    let indent = match indent {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(indent.as_usize().unwrap_or(0)),
        }),
    };
    let separators: Option<Value> = kwargs.get("separators")?;
    let separators = separators.filter(|s| !s.is_none());
    let (item, key) = match separators {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => (
            str_of(&pair.get_item_by_index(0)?),
            str_of(&pair.get_item_by_index(1)?),
        ),
    };
    let dumps = Dumps {
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

struct Dumps {
    indent: Option<String>,
    item: String,
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Dumps {
    fn value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, "Infinity", "NaN")),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort_by_key(str_of);
                }
                let items = keys
                    .into_iter()
                    .map(|k| (Some(k.clone()), value.get_item(&k)));
                self.items('{', '}', items, depth, out)?;
            }
            ValueKind::Seq => {
                let items = value.try_iter()?.map(|v| (None, Ok(v)));
                self.items('[', ']', items, depth, out)?;
            }
            other => return Err(invalid(format!("{other} is not JSON serializable"))),
        }
        Ok(())
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
            self.new_line(depth + 1, out);
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
            self.new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
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
