//! Rows to records: which keys a format has, and what may stand in them.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::error::{KeyPath, RowProblem};
use crate::options::Format;
use crate::source::type_name;

type Fields = Map<String, Value>;

/// One example, before any text becomes tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Tokens {
        ids: Vec<u32>,
        labels: Option<Vec<i64>>,
    },
    Text(String),
    Completion {
        prompt: String,
        completion: String,
    },
    Alpaca {
        instruction: String,
        input: String,
        output: String,
    },
    Chat(Conversation),
}

/// Messages and what the template is given with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conversation {
    pub messages: Vec<Value>,
    pub tools: Option<Value>,
    pub variables: Fields,
    /// The first message of the completion; without one, only the last assistant turn is.
    pub completion: Option<usize>,
}

/// The format whose keys are there. An alpaca file may hold a ready `text` as well, a chat file
/// a `prompt`: the richer format is tried first.
pub(crate) fn detect(keys: &[&str]) -> Option<Format> {
    let has = |key| keys.contains(&key);
    if has("input_ids") {
        Some(Format::Tokens)
    } else if has("messages") || has("conversations") {
        Some(Format::Chat)
    } else if has("instruction") && has("output") {
        Some(Format::Alpaca)
    } else if has("prompt") && has("completion") {
        Some(Format::Completion)
    } else if has("text") {
        Some(Format::Text)
    } else {
        None
    }
}

/// Reads a row as `format` has it. Keys that the format does not know are ignored.
pub(crate) fn parse(mut fields: Fields, format: Format) -> Result<Record, RowProblem> {
    match format {
        Format::Tokens => tokens(&fields),
        Format::Text => Ok(Record::Text(take_text(&mut fields, "text")?)),
        Format::Alpaca => Ok(Record::Alpaca {
            instruction: take_text(&mut fields, "instruction")?,
            input: match fields.get("input") {
                None | Some(Value::Null) => String::new(),
                Some(_) => take_text(&mut fields, "input")?,
            },
            output: take_text(&mut fields, "output")?,
        }),
        Format::Completion => completion(fields),
        Format::Chat => chat(fields),
        Format::Auto => unreachable!("decided per file before rows are parsed"),
    }
}

fn get<'a>(fields: &'a Fields, key: &str) -> Result<&'a Value, RowProblem> {
    fields.get(key).ok_or_else(|| RowProblem::Missing {
        key: KeyPath::name(key),
        saw: fields.keys().cloned().collect(),
    })
}

fn wrong(key: KeyPath, expected: &'static str, got: &Value) -> RowProblem {
    RowProblem::WrongType {
        key,
        expected,
        got: type_name(got),
    }
}

fn take_text(fields: &mut Fields, key: &str) -> Result<String, RowProblem> {
    get(fields, key)?;
    match fields.get_mut(key).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        other => Err(wrong(
            KeyPath::name(key),
            "a string",
            &other.unwrap_or_default(),
        )),
    }
}

/// A list, or a text that holds one as JSON (CSV has nothing else).
fn list<'a>(fields: &'a Fields, key: &str) -> Result<Cow<'a, [Value]>, RowProblem> {
    let value = get(fields, key)?;
    match value {
        Value::Array(list) => Ok(Cow::Borrowed(list)),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(list)) => Ok(Cow::Owned(list)),
            _ => Err(wrong(KeyPath::name(key), "an array", value)),
        },
        _ => Err(wrong(KeyPath::name(key), "an array", value)),
    }
}

fn integers(fields: &Fields, key: &str) -> Result<Vec<i64>, RowProblem> {
    let list = list(fields, key)?;
    let integer = |(index, value): (usize, &Value)| {
        let path = KeyPath::name(key).then(index);
        match value {
            Value::Number(number) => number.as_i64().ok_or_else(|| RowProblem::Value {
                key: path,
                value: number.to_string(),
                expected: "a whole number of 64 bits",
            }),
            _ => Err(wrong(path, "a whole number", value)),
        }
    };
    list.iter().enumerate().map(integer).collect()
}

fn tokens(fields: &Fields) -> Result<Record, RowProblem> {
    let mut ids = integers(fields, "input_ids")?
        .into_iter()
        .enumerate()
        .map(|(index, id)| {
            // Targets are stored as i32.
            i32::try_from(id)
                .ok()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| RowProblem::Value {
                    key: KeyPath::name("input_ids").then(index),
                    value: id.to_string(),
                    expected: "a token id",
                })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let optional = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => {
            let values = integers(fields, key)?;
            if values.len() != ids.len() {
                return Err(RowProblem::Lengths {
                    key: KeyPath::name(key),
                    got: values.len(),
                    expected: ids.len(),
                });
            }
            Ok(Some(values))
        }
    };
    let mut labels = optional("labels")?;
    if let Some(mask) = optional("attention_mask")? {
        let real = padding(&mask)?;
        ids = ids[real.clone()].to_vec();
        labels = labels.map(|labels| labels[real].to_vec());
    }
    Ok(Record::Tokens { ids, labels })
}

/// The tokens that are not padding, which may stand only before or after them.
fn padding(mask: &[i64]) -> Result<std::ops::Range<usize>, RowProblem> {
    let bad = |index: usize, expected| RowProblem::Value {
        key: KeyPath::name("attention_mask").then(index),
        value: mask[index].to_string(),
        expected,
    };
    if let Some(index) = mask.iter().position(|m| !(0..=1).contains(m)) {
        return Err(bad(index, "0 or 1"));
    }
    let start = mask.iter().position(|&m| m == 1).unwrap_or(mask.len());
    let end = mask.iter().rposition(|&m| m == 1).map_or(start, |i| i + 1);
    match mask[start..end].iter().position(|&m| m == 0) {
        Some(inside) => Err(bad(start + inside, "1, as between other tokens")),
        None => Ok(start..end),
    }
}

fn completion(mut fields: Fields) -> Result<Record, RowProblem> {
    let prompt = get(&fields, "prompt")?;
    let completion = get(&fields, "completion")?;
    if prompt.is_string() && completion.is_string() {
        return Ok(Record::Completion {
            prompt: take_text(&mut fields, "prompt")?,
            completion: take_text(&mut fields, "completion")?,
        });
    }
    for (key, value) in [("prompt", prompt), ("completion", completion)] {
        if !value.is_array() {
            let expected = "a string, or an array of messages like the other";
            return Err(wrong(KeyPath::name(key), expected, value));
        }
    }
    let mut messages = take_messages(&fields, "prompt")?;
    let first = messages.len();
    messages.extend(take_messages(&fields, "completion")?);
    conversation(fields, messages, Some(first))
}

fn chat(fields: Fields) -> Result<Record, RowProblem> {
    let messages = if fields.contains_key("messages") || !fields.contains_key("conversations") {
        take_messages(&fields, "messages")?
    } else {
        share_gpt(&fields)?
    };
    conversation(fields, messages, None)
}

fn conversation(
    mut fields: Fields,
    messages: Vec<Value>,
    completion: Option<usize>,
) -> Result<Record, RowProblem> {
    let tools = match fields.remove("tools") {
        None | Some(Value::Null) => None,
        Some(Value::Array(tools)) => Some(Value::Array(tools)),
        // Some data sets keep the schemas as JSON text; an empty one means none.
        Some(Value::String(text)) if text.trim().is_empty() => None,
        Some(value) => match value.as_str().map(serde_json::from_str) {
            Some(Ok(Value::Array(tools))) => Some(Value::Array(tools)),
            _ => return Err(wrong(KeyPath::name("tools"), "an array", &value)),
        },
    };
    let variables = match fields.remove("chat_template_kwargs") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(variables)) => variables,
        Some(value) => {
            let key = KeyPath::name("chat_template_kwargs");
            return Err(wrong(key, "an object", &value));
        }
    };
    Ok(Record::Chat(Conversation {
        messages,
        tools,
        variables,
        completion,
    }))
}

/// Messages as they stand: content may be text, null or a list of parts, as the template likes.
fn take_messages(fields: &Fields, key: &str) -> Result<Vec<Value>, RowProblem> {
    let list = list(fields, key)?.into_owned();
    for (index, message) in list.iter().enumerate() {
        let path = KeyPath::name(key).then(index);
        let Value::Object(message) = message else {
            return Err(wrong(path, "an object", message));
        };
        match message.get("role") {
            Some(Value::String(_)) => {}
            Some(other) => return Err(wrong(path.then("role"), "a string", other)),
            None => return Err(missing(path.then("role"), message)),
        }
        match message.get("content") {
            None | Some(Value::Null | Value::String(_) | Value::Array(_)) => {}
            Some(other) => {
                return Err(wrong(path.then("content"), "a string or an array", other));
            }
        }
    }
    Ok(list)
}

fn missing(key: KeyPath, message: &Fields) -> RowProblem {
    RowProblem::Missing {
        key,
        saw: message.keys().cloned().collect(),
    }
}

/// ShareGPT's `from` and `value` as `role` and `content`, its `system` as the first message.
fn share_gpt(fields: &Fields) -> Result<Vec<Value>, RowProblem> {
    let list = list(fields, "conversations")?;
    // Some data sets use this key for messages with roles.
    if list.first().is_some_and(|m| m.get("role").is_some()) {
        return take_messages(fields, "conversations");
    }
    let mut messages = Vec::with_capacity(list.len() + 1);
    if let Some(Value::String(system)) = fields.get("system").filter(|s| **s != "") {
        messages.push(json!({"role": "system", "content": system}));
    }
    for (index, turn) in list.iter().enumerate() {
        let path = KeyPath::name("conversations").then(index);
        let Value::Object(turn) = turn else {
            return Err(wrong(path, "an object", turn));
        };
        let text = |key: &str| match turn.get(key) {
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(other) => Err(wrong(path.then(key), "a string", other)),
            None => Err(missing(path.then(key), turn)),
        };
        let role = match text("from")? {
            "human" | "user" => "user",
            "gpt" | "assistant" | "chatgpt" => "assistant",
            "system" => "system",
            "tool" | "observation" => "tool",
            other => {
                return Err(RowProblem::Speaker {
                    key: path.then("from"),
                    speaker: other.to_owned(),
                });
            }
        };
        messages.push(json!({"role": role, "content": text("value")?}));
    }
    Ok(messages)
}
