//! Contents that are lists of text parts, in the form that templates read.

use serde_json::Value;

use super::calls::{TemplateReads, calls_of};
use super::{Fields, wrong};
use crate::error::{KeyPath, RowProblem};

/// Checks the parts of a message's content. A plain text among them becomes a part. Parts with
/// everything under `value` (LLaMA-Factory) become a text, with the reasoning and the calls beside
/// it.
pub(super) fn take_parts(
    message: &mut Fields,
    path: &KeyPath,
    template: Option<&TemplateReads>,
) -> Result<(), RowProblem> {
    let Some(Value::Array(parts)) = message.get("content") else {
        return Ok(());
    };
    let path = path.then("content");
    let in_values = |part: &Value| part.get("value").is_some() && part.get("text").is_none();
    if !parts.iter().any(in_values) {
        let mut indexed = parts.iter().enumerate();
        indexed.try_for_each(|(index, part)| text_part(part, &path.then(index)))?;
        if parts.iter().any(Value::is_string) {
            let parts = parts.iter().map(|part| match part {
                Value::String(text) => serde_json::json!({"type": "text", "text": text}),
                part => part.clone(),
            });
            let parts = parts.collect();
            message.insert("content".to_owned(), parts);
        }
        return Ok(());
    }
    let (mut text, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for (index, part) in parts.iter().enumerate() {
        let path = path.then(index);
        let value = match part.get("value") {
            Some(Value::String(value)) => value,
            Some(other) => return Err(wrong(path.then("value"), "a string", other)),
            None => {
                let expected = "an object with `value` like the others";
                return Err(wrong(path, expected, part));
            }
        };
        match part.get("type").and_then(Value::as_str) {
            Some("reasoning") => reasoning += value,
            Some("tool_call") if template.is_none_or(|t| t.mentions("tool_calls")) => {
                let expected = "a call as JSON, {\"name\": …, \"arguments\": …}";
                let part = Value::from(value.as_str());
                let call = calls_of(value);
                calls.extend(call.ok_or_else(|| wrong(path.then("value"), expected, &part))?);
            }
            Some("text" | "tool_call") => text += value,
            _ => return Err(no_text(part, &path)),
        }
    }
    message.insert("content".to_owned(), text.into());
    let beside = [
        (
            "reasoning_content",
            Value::from(reasoning.as_str()),
            reasoning.is_empty(),
        ),
        ("tool_calls", calls.clone().into(), calls.is_empty()),
    ];
    for (key, value, _) in beside.into_iter().filter(|(.., empty)| !empty) {
        if message.contains_key(key) {
            return Err(RowProblem::Refused {
                key: path,
                why: format!("has what `{key}` beside it has as well; remove one"),
            });
        }
        message.insert(key.to_owned(), value);
    }
    Ok(())
}

/// Only text can be trained.
fn text_part(part: &Value, path: &KeyPath) -> Result<(), RowProblem> {
    let Value::Object(fields) = part else {
        let expected = "an object such as {\"type\": \"text\", \"text\": …}";
        return match part {
            Value::String(_) => Ok(()),
            _ => Err(wrong(path.clone(), expected, part)),
        };
    };
    let key = match fields.get("type") {
        None => "text",
        Some(Value::String(kind)) if kind.ends_with("text") => "text",
        Some(Value::String(kind)) if kind == "refusal" => "refusal",
        Some(_) => return Err(no_text(part, path)),
    };
    match fields.get(key) {
        Some(Value::String(_)) => Ok(()),
        Some(other) => Err(wrong(path.then(key), "a string", other)),
        None => Err(super::missing(path.then(key), fields)),
    }
}

fn no_text(part: &Value, path: &KeyPath) -> RowProblem {
    let kind = part.get("type").unwrap_or(&Value::Null);
    RowProblem::Refused {
        key: path.then("type"),
        why: format!("only text can be trained, this part is {kind}; leave the row out"),
    }
}
