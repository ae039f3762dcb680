//! The engine's own filters and tests that walk all of a value or turn it into text: walks are
//! charged, text is Python's, and names of attributes mean items first, as in jinja2.

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State, Value, filters, tests};

use super::dictionary::items_first;
use super::limits;
use super::python::{repr, str_of};

/// Replaces these filters and tests.
pub(super) fn install(environment: &mut Environment<'static>) {
    for (name, filter) in [
        ("attr", Value::from_function(filters::attr)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("groupby", Value::from_function(filters::groupby)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("sort", Value::from_function(filters::sort)),
        ("sum", Value::from_function(filters::sum)),
        ("unique", Value::from_function(filters::unique)),
    ] {
        environment.add_filter(name, walking(filter));
    }
    for (name, filter) in [
        ("capitalize", Value::from_function(filters::capitalize)),
        ("format", Value::from_function(filters::format)),
        ("lines", Value::from_function(filters::lines)),
        ("lower", Value::from_function(filters::lower)),
        ("safe", Value::from_function(filters::safe)),
        ("split", Value::from_function(filters::split)),
        ("title", Value::from_function(filters::title)),
        ("upper", Value::from_function(filters::upper)),
    ] {
        environment.add_filter(name, textual(filter));
    }
    environment.add_filter("indent", indent);
    environment.add_filter("replace", replace);
    environment.add_filter("pprint", |state: &State, value: &Value| repr(state, value));
    for (names, test) in [
        (
            &["eq", "equalto", "=="][..],
            Value::from_function(tests::is_eq),
        ),
        (&["ne", "!="], Value::from_function(tests::is_ne)),
        (&["lt", "lessthan", "<"], Value::from_function(tests::is_lt)),
        (&["le", "<="], Value::from_function(tests::is_le)),
        (
            &["gt", "greaterthan", ">"],
            Value::from_function(tests::is_gt),
        ),
        (&["ge", ">="], Value::from_function(tests::is_ge)),
        (&["in"], Value::from_function(tests::is_in)),
    ] {
        for name in names {
            environment.add_test(*name, walking(test.clone()));
        }
    }
    for (name, test) in [
        ("startingwith", Value::from_function(tests::is_startingwith)),
        ("endingwith", Value::from_function(tests::is_endingwith)),
        ("lower", Value::from_function(tests::is_lower)),
        ("upper", Value::from_function(tests::is_upper)),
    ] {
        environment.add_test(name, textual(test));
    }
}

type Arguments = Rest<ValueOrKwargs>;

/// A function that walks its arguments.
fn walking(
    native: Value,
) -> impl Fn(&mut State, Arguments) -> Result<Value, Error> + Send + Sync + 'static {
    move |state, arguments| {
        let arguments = arguments.into_values();
        for argument in &arguments {
            limits::measure(state, argument)?;
        }
        items_first(|| native.call(state, &arguments))
    }
}

/// A function of text: its operand becomes text, and so do arguments with parts.
fn textual(
    native: Value,
) -> impl Fn(&mut State, Arguments) -> Result<Value, Error> + Send + Sync + 'static {
    move |state, arguments| {
        let mut arguments = arguments.into_values();
        for (index, argument) in arguments.iter_mut().enumerate() {
            if !argument.is_kwargs() && (index == 0 || has_parts(argument)) {
                as_text(state, argument)?;
            }
        }
        native.call(state, &arguments)
    }
}

/// Replaces a value by its text.
pub(super) fn as_text(state: &State, value: &mut Value) -> Result<(), Error> {
    if value.as_str().is_none() && !value.is_undefined() {
        *value = Value::from(str_of(state, value)?);
    }
    Ok(())
}

/// Whether the engine would print the value in its own way.
pub(super) fn has_parts(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
    )
}

/// `replace(old, new, count=none)`.
fn replace(state: &State, arguments: Arguments) -> Result<String, Error> {
    type Arguments<'a> = (&'a Value, &'a Value, &'a Value, Option<usize>, Kwargs);
    let arguments = arguments.into_values();
    let (text, old, new, count, kwargs): Arguments<'_> = from_args(&arguments)?;
    let count = count.or(kwargs.get("count")?).unwrap_or(usize::MAX);
    kwargs.assert_all_used()?;
    let [text, old, new] = [text, old, new].map(|value| str_of(state, value));
    let (text, old, new) = (text?, old?, new?);
    let found = text.matches(old.as_str()).take(count).count();
    let made = found.saturating_mul(new.len());
    state.consume_fuel(text.len().saturating_add(made) as u64 / 64)?;
    Ok(text.replacen(&old, &new, count))
}

/// `indent(width=4, first=false, blank=false)`.
fn indent(state: &State, arguments: Arguments) -> Result<String, Error> {
    type Arguments<'a> = (&'a Value, Option<Value>, Option<bool>, Option<bool>, Kwargs);
    let arguments = arguments.into_values();
    let (text, width, first, blank, kwargs): Arguments<'_> = from_args(&arguments)?;
    let width = width.or(kwargs.get("width")?).unwrap_or(Value::from(4));
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let text = str_of(state, text)? + "\n";
    let lines = split_lines(&text);
    let spaces = match width.as_str() {
        Some(text) => text.len(),
        None => width.as_usize().unwrap_or(0),
    };
    let made = lines.len().saturating_mul(spaces);
    state.consume_fuel(text.len().saturating_add(made) as u64 / 64)?;
    let indention = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(spaces),
    };
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let indented = match index {
            0 => first,
            _ => blank || !line.is_empty(),
        };
        out.push_str(if index > 0 { "\n" } else { "" });
        out.push_str(if indented { &indention } else { "" });
        out.push_str(line);
    }
    Ok(out)
}

/// `text.splitlines()`.
fn split_lines(text: &str) -> Vec<&str> {
    const ENDS: [char; 10] = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ENDS) {
        lines.push(&rest[..at]);
        let mut after = rest[at..].chars();
        let end = after.next();
        rest = after.as_str();
        if end == Some('\r') {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
