//! Filters and tests of jinja2 that differ from the engine's.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::python::{invalid, str_of, strip};

/// Replaces the engine's filters and tests.
pub(super) fn install(environment: &mut Environment<'static>) {
    super::native::install(environment);
    environment.add_filter("string", |state: &State, value: &Value| {
        Ok::<_, Error>(match value.as_str() {
            Some(_) => value.clone(),
            None => Value::from(str_of(state, value)?),
        })
    });
    environment.add_filter("join", join);
    environment.add_filter("trim", trim);
    for name in ["default", "d"] {
        environment.add_filter(name, default);
    }
    for name in ["escape", "e"] {
        environment.add_filter(name, escape);
    }
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_test("iterable", |value: &Value| {
        !matches!(
            value.kind(),
            ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain
        )
    });
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map
        )
    });
}

/// `trim(chars=none)`.
fn trim(state: &State, value: &Value, chars: Option<&str>) -> Result<String, Error> {
    let text = str_of(state, value)?;
    Ok(match chars {
        None => strip(&text).to_owned(),
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
    })
}

/// `join(d='', attribute=none)`.
fn join(
    state: &State,
    value: &Value,
    separator: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get("d")?,
    };
    let separator = match separator {
        Some(separator) => str_of(state, &separator)?,
        None => String::new(),
    };
    let attribute: Option<String> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    joined(state, value, &separator, |item| match &attribute {
        Some(path) => attribute_of(item, path),
        None => Ok(item),
    })
}

/// The value at a path such as `a.0.b`: items come first, then attributes.
fn attribute_of(value: Value, path: &str) -> Result<Value, Error> {
    path.split('.').try_fold(value, |value, name| {
        let index = name.parse::<usize>().map_or(Value::from(name), Value::from);
        match value.get_item(&index)? {
            item if item.is_undefined() => value.get_attr(name),
            item => Ok(item),
        }
    })
}

/// The texts of all items with the separator between them; their cost is charged before they are
/// made.
pub(super) fn joined(
    state: &State,
    value: &Value,
    separator: &str,
    part: impl Fn(Value) -> Result<Value, Error>,
) -> Result<String, Error> {
    let mut out = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        let text = str_of(state, &part(item)?)?;
        state.consume_fuel(1 + (separator.len() + text.len()) as u64 / 64)?;
        out.push_str(if index > 0 { separator } else { "" });
        out.push_str(&text);
    }
    Ok(out)
}

/// `default(value='', boolean=false)`.
fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<bool>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let other = match other {
        Some(other) => other,
        None => kwargs
            .get::<Option<Value>>("default_value")?
            .unwrap_or_else(|| Value::from("")),
    };
    let boolean = boolean.or(kwargs.get("boolean")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let replaced = value.is_undefined() || (boolean && !value.is_true());
    Ok(if replaced { other } else { value.clone() })
}

/// HTML escapes, as in MarkupSafe.
fn escape(state: &State, value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let mut out = String::new();
    for c in str_of(state, value)?.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Ok(Value::from_safe_string(out))
}

/// `int(default=0, base=10)`; a value that cannot be converted gives the default.
fn int(value: &Value, other: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let other = other.or(kwargs.get("default")?);
    let base: u32 = kwargs.get::<Option<u32>>("base")?.unwrap_or(10);
    kwargs.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(invalid(format!("int: base {base} is not between 2 and 36")));
    }
    let float = |x: f64| x.is_finite().then(|| Value::from(x.trunc() as i128));
    let converted = match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(float),
        ValueKind::String => {
            let text = strip(value.as_str().unwrap_or_default());
            let whole = i128::from_str_radix(text, base).ok().map(Value::from);
            whole.or_else(|| text.parse().ok().and_then(float))
        }
        _ => None,
    };
    Ok(converted.or(other).unwrap_or_else(|| Value::from(0)))
}

/// `float(default=0.0)`; a value that cannot be converted gives the default.
fn float(value: &Value, other: Option<Value>) -> Value {
    let converted = match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => strip(value.as_str().unwrap_or_default()).parse().ok(),
        _ => None,
    };
    match converted {
        Some(x) => Value::from(x),
        None => other.unwrap_or_else(|| Value::from(0.0)),
    }
}
