//! Tools and calls of tools in the form that a chat template reads.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Fields, wrong};
use crate::error::{KeyPath, RowProblem};
use crate::template::ChatTemplate;

/// Keys that a chat template can read, found in its text.
#[derive(Debug, Default)]
pub(crate) struct TemplateReads {
    words: HashSet<String>,
    /// Whether arguments of calls are written out as JSON, so that text would be quoted once more.
    json_arguments: bool,
}

impl TemplateReads {
    pub(crate) fn of(template: &ChatTemplate) -> Self {
        let source = template.source();
        let words = source.split(|c: char| !c.is_alphanumeric() && c != '_');
        let compact: String = source.chars().filter(|c| !c.is_whitespace()).collect();
        let dumped = [
            "arguments",
            "arguments']",
            "arguments\"]",
            "function",
            "call",
            "calls",
        ];
        let json_arguments = dumped
            .iter()
            .any(|d| compact.contains(&format!("{d}|tojson")))
            && !compact.contains("argumentsisstring");
        Self {
            words: words.map(str::to_owned).collect(),
            json_arguments,
        }
    }

    /// Whether the text of the template has this word.
    pub(crate) fn mentions(&self, key: &str) -> bool {
        self.words.contains(key)
    }

    /// Whether a key of a message can reach the text. Reasoning has several names.
    pub(crate) fn reads_key_of_message(&self, key: &str) -> bool {
        match key {
            "role" | "content" => true,
            "reasoning" | "thinking" | "reasoning_content" => {
                ["reasoning_content", "thinking", key]
                    .iter()
                    .any(|key| self.mentions(key))
            }
            _ => self.mentions(key),
        }
    }
}

/// Schemas of tools: a list, or its JSON text. A schema without its wrapper gets one, unless the
/// template does not know the wrapper and reads the schema itself.
pub(super) fn take_tools(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
) -> Result<Option<Value>, RowProblem> {
    let (key, value) = match (
        fields.shift_remove("tools"),
        fields.contains_key("functions"),
    ) {
        (Some(tools), _) => ("tools", tools),
        // The older name of the same key.
        (None, true) => (
            "functions",
            fields.shift_remove("functions").unwrap_or_default(),
        ),
        (None, false) => return Ok(None),
    };
    let list = match value {
        Value::Array(list) => list,
        // Some data sets store the schemas as JSON text; an empty text means none.
        Value::String(text) if matches!(text.trim(), "" | "null") => return Ok(None),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Array(list)) => list,
            _ => return Err(wrong(KeyPath::name(key), "an array", &Value::String(text))),
        },
        other => return Err(wrong(KeyPath::name(key), "an array", &other)),
    };
    if list.is_empty() {
        return Ok(None);
    }
    let wraps = template.is_none_or(|template| template.mentions("function"));
    let wrapped = list.into_iter().map(|tool| {
        let bare = tool.get("name").is_some() && tool.get("type").is_none();
        match wraps && bare && tool.get("function").is_none() {
            true => json!({"type": "function", "function": tool}),
            false => tool,
        }
    });
    Ok(Some(wrapped.collect()))
}

/// An assistant's message that calls functions, from the text of a ShareGPT turn: one call or a
/// list of calls as JSON. Text that is no call, or that the template does not read as one, is
/// content.
pub(super) fn function_call(text: String, template: Option<&TemplateReads>) -> Fields {
    let place = template.is_some_and(|template| template.mentions("tool_calls"));
    let calls = place.then(|| calls_of(&text)).flatten();
    let message = match calls {
        Some(calls) => json!({"role": "assistant", "content": "", "tool_calls": calls}),
        None => json!({"role": "assistant", "content": text}),
    };
    match message {
        Value::Object(message) => message,
        _ => Fields::new(),
    }
}

/// One call or a list of calls as JSON.
pub(super) fn calls_of(text: &str) -> Option<Vec<Value>> {
    let calls = match serde_json::from_str(text).ok()? {
        Value::Array(calls) if !calls.is_empty() => calls,
        call @ Value::Object(_) => vec![call],
        _ => return None,
    };
    let call = |call: Value| {
        let name = call.get("name")?.as_str()?.to_owned();
        let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
            None | Some(Value::Null) => json!({}),
            Some(Value::String(text)) => serde_json::from_str(text).ok()?,
            Some(arguments) => arguments.clone(),
        };
        Some(json!({"type": "function", "function": {"name": name, "arguments": arguments}}))
    };
    calls.into_iter().map(call).collect()
}

/// Converts the calls of a message with a role to the form that the template writes out: the older
/// `function_call` becomes `tool_calls`, its answer becomes a tool's result, and arguments as JSON
/// text become JSON.
pub(super) fn normalize_calls(message: &mut Fields, template: Option<&TemplateReads>) {
    if let Some(call) = message.shift_remove("function_call")
        && !message.contains_key("tool_calls")
    {
        let calls = json!([{"type": "function", "function": call}]);
        message.insert("tool_calls".to_owned(), calls);
    }
    if message.get("role").and_then(Value::as_str) == Some("function") {
        message.insert("role".to_owned(), "tool".into());
    }
    if !template.is_some_and(|template| template.json_arguments) {
        return;
    }
    let Some(Value::Array(calls)) = message.get_mut("tool_calls") else {
        return;
    };
    for call in calls {
        let Some(Value::Object(function)) = call.get_mut("function") else {
            continue;
        };
        let Some(Value::String(text)) = function.get("arguments") else {
            continue;
        };
        if let Ok(arguments @ Value::Object(_)) = serde_json::from_str(text) {
            function.insert("arguments".to_owned(), arguments);
        }
    }
}
