//! Messages whose content is a list of parts, as in OpenAI's layout.

use std::borrow::Cow;

use serde_json::Value;

use super::{ChatTemplate, Variables};
use crate::record::Conversation;

/// The messages with parts where the template reads parts, and with their texts in one where it would
/// print them as a list.
pub(crate) fn as_template_reads<'a>(
    template: &ChatTemplate,
    conversation: &'a Conversation,
    variables: &Variables,
) -> Cow<'a, [Value]> {
    let messages = &conversation.messages;
    let mut listed = Vec::new();
    for message in messages {
        let Some(Value::Array(parts)) = message.get("content") else {
            continue;
        };
        // What Python prints of the list begins with the first key of its first part.
        let key = parts.first().and_then(Value::as_object);
        listed.extend(key.and_then(|part| Some(format!("[{{'{}': ", part.keys().next()?))));
    }
    if listed.is_empty() {
        return Cow::Borrowed(messages);
    }
    let tools = conversation.tools.as_ref();
    let text = template.render(messages, tools, false, variables);
    match text {
        Ok(text) if !listed.iter().any(|list| text.text.contains(list)) => Cow::Borrowed(messages),
        _ => Cow::Owned(messages.iter().map(joined).collect()),
    }
}

/// The message with the texts of its parts, one below the other.
fn joined(message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(Value::Array(parts)) = message.get("content") {
        let texts = parts
            .iter()
            .filter_map(|part| part.get("text").or(part.get("refusal"))?.as_str());
        let text = texts.collect::<Vec<_>>().join("\n");
        message["content"] = text.into();
    }
    message
}
