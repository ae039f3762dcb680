//! Filters and tests of jinja2 where the engine's own differ.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, Value};

use super::python::{invalid, str_of, strip};

/// Replaces the engine's filters and tests.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter("string", |value: &Value| match value.as_str() {
        Some(_) => value.clone(),
        None => Value::from(str_of(value)),
    });
    environment.add_filter("join", join);
    environment.add_filter("trim", |value: &Value, chars: Option<&str>| {
        let text = str_of(value);
        match chars {
            None => strip(&text).to_owned(),
            Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        }
    });
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
            ValueKind::None | ValueKind::Bool | ValueKind::Number
        )
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map
        )
    });
}

/// `join(d='', attribute=none)`.
fn join(value: &Value, separator: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get("d")?,
    };
    let separator = separator.map(|s| str_of(&s)).unwrap_or_default();
    let attribute: Option<String> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    let mut parts = Vec::new();
    for item in value.try_iter()? {
        parts.push(match &attribute {
            Some(name) => str_of(&item.get_attr(name)?),
            None => str_of(&item),
        });
    }
    Ok(parts.join(&separator))
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

/// HTML escapes as MarkupSafe has them.
fn escape(value: &Value) -> Value {
    if value.is_safe() {
        return value.clone();
    }
    let mut out = String::new();
    for c in str_of(value).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Value::from_safe_string(out)
}

/// `int(default=0, base=10)`: what cannot be converted gives the default.
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

/// `float(default=0.0)`: what cannot be converted gives the default.
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
