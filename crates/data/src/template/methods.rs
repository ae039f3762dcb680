//! Python's methods of strings, lists and dictionaries, as used by templates.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, State, Value};

use super::filters::joined;
use super::limits;
use super::native::{as_text, has_parts};
use super::python::{invalid, is_space};

/// Called for a method that the engine does not know.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let mut args = args.to_vec();
    for arg in &mut args {
        limits::measure(state, arg)?;
        if method == "format" && has_parts(arg) && !arg.is_kwargs() {
            as_text(state, arg)?;
        }
    }
    match value.kind() {
        ValueKind::String if method == "format" => {
            pay_for_widths(state, value.as_str().unwrap_or_default())?;
        }
        // `count` and `index` compare all elements of a list.
        ValueKind::Seq | ValueKind::Iterable => limits::measure(state, value)?,
        _ => {}
    }
    let args = &args[..];
    let own = match value.kind() {
        ValueKind::String => string(state, value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Map if method == "copy" && args.is_empty() => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// The engine makes text of any width that a format asks for before the text is counted.
fn pay_for_widths(state: &State, format: &str) -> Result<(), Error> {
    let numbers = format.split(|c: char| !c.is_ascii_digit());
    for number in numbers.filter(|number| !number.is_empty()) {
        state.consume_fuel(number.parse::<u64>().unwrap_or(u64::MAX))?;
    }
    Ok(())
}

/// Methods whose replacements elsewhere differ from Python.
fn string(state: &State, text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let strip = |left: bool, right: bool| -> Result<Value, Error> {
        let (chars,): (Option<&str>,) = from_args(args)?;
        let cut = |c: char| chars.map_or(is_space(c), |chars| chars.contains(c));
        let mut rest = text;
        if left {
            rest = rest.trim_start_matches(cut);
        }
        if right {
            rest = rest.trim_end_matches(cut);
        }
        Ok(Value::from(rest))
    };
    let affix = |cut: fn(&'_ str, &str) -> Option<usize>| -> Result<Value, Error> {
        let (affix,): (&str,) = from_args(args)?;
        Ok(match cut(text, affix) {
            Some(at) if method == "removeprefix" => Value::from(&text[at..]),
            Some(at) => Value::from(&text[..at]),
            None => Value::from(text),
        })
    };
    Ok(Some(match method {
        "strip" => strip(true, true)?,
        "lstrip" => strip(true, false)?,
        "rstrip" => strip(false, true)?,
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "capitalize" => {
            let () = from_args(args)?;
            let mut chars = text.chars();
            let first: String = chars.next().map(upper_first).unwrap_or_default();
            Value::from(first + &chars.as_str().to_lowercase())
        }
        "removeprefix" => affix(|text, p| text.starts_with(p).then_some(p.len()))?,
        "removesuffix" => affix(|text, s| text.ends_with(s).then(|| text.len() - s.len()))?,
        "split" | "rsplit" => Value::from(split(text, method == "rsplit", args)?),
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            Value::from(joined(state, items, text, Ok)?)
        }
        _ => return Ok(None),
    }))
}

/// Approximate title case of a character: `ß` becomes `Ss`.
fn upper_first(c: char) -> String {
    let mut upper = c.to_uppercase();
    let first: String = upper.next().into_iter().collect();
    first + &upper.collect::<String>().to_lowercase()
}

/// `text.title()`: every run of letters begins with a capital.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.push_str(&upper_first(c)),
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// `text.split(separator, limit)` and `rsplit`; without separator, they split at runs of white
/// space.
fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Vec<Value>, Error> {
    let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
    let limit = limit
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = text;
    let Some(separator) = separator else {
        let trim = |text| match from_right {
            true => str::trim_end_matches(text, is_space),
            false => str::trim_start_matches(text, is_space),
        };
        rest = trim(rest);
        while !rest.is_empty() {
            let cut = match from_right {
                true => rest.char_indices().rfind(|(_, c)| is_space(*c)),
                false => rest.char_indices().find(|(_, c)| is_space(*c)),
            };
            let Some((at, c)) = cut.filter(|_| parts.len() < limit) else {
                parts.push(rest);
                break;
            };
            let (left, right) = (&rest[..at], &rest[at + c.len_utf8()..]);
            let (part, remaining) = if from_right {
                (right, left)
            } else {
                (left, right)
            };
            parts.push(part);
            rest = trim(remaining);
        }
        return Ok(in_order(parts, from_right));
    };
    if separator.is_empty() {
        return Err(invalid("empty separator"));
    }
    while parts.len() < limit {
        let cut = match from_right {
            true => rest
                .rsplit_once(separator)
                .map(|(left, right)| (right, left)),
            false => rest.split_once(separator),
        };
        let Some((part, remaining)) = cut else { break };
        parts.push(part);
        rest = remaining;
    }
    parts.push(rest);
    Ok(in_order(parts, from_right))
}

fn in_order(mut parts: Vec<&str>, reversed: bool) -> Vec<Value> {
    if reversed {
        parts.reverse();
    }
    parts.into_iter().map(Value::from).collect()
}
