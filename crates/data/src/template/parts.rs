//! Messages whose content is a list of parts, as in OpenAI's layout.

use std::borrow::Cow;

use serde_json::Value;

use super::{ChatTemplate, Variables};
use crate::record::Conversation;

/// The messages with parts if the template reads parts; otherwise with the texts of the parts
/// joined, if it would print them as a list, fail, or write fewer of them than of one text.
pub(crate) fn as_template_reads<'a>(
    template: &ChatTemplate,
    conversation: &'a Conversation,
    variables: &Variables,
) -> Cow<'a, [Value]> {
    let messages = &conversation.messages;
    let lists: Vec<_> = messages.iter().filter_map(parts_of).collect();
    if lists.is_empty() {
        return Cow::Borrowed(messages);
    }
    let texts: Vec<&str> = lists
        .iter()
        .copied()
        .flatten()
        .filter_map(text_of)
        .collect();
    // Python prints a list with the first key of its first part at the beginning.
    let firsts = lists
        .iter()
        .filter_map(|parts| parts.first()?.as_object()?.keys().next());
    let printed: Vec<String> = firsts.map(|key| format!("[{{'{key}': ")).collect();
    let written = |messages: &[Value]| {
        let tools = conversation.tools.as_ref();
        let text = template
            .render(messages, tools, false, variables)
            .ok()?
            .text;
        let prints_lists = printed.iter().any(|list| text.contains(list));
        let written = texts.iter().filter(|part| text.contains(part.trim()));
        (!prints_lists).then(|| written.count())
    };
    let of_parts = written(messages);
    if of_parts == Some(texts.len()) {
        return Cow::Borrowed(messages);
    }
    let joined: Vec<Value> = messages.iter().map(joined).collect();
    match of_parts.is_some() && of_parts >= written(&joined) {
        true => Cow::Borrowed(messages),
        false => Cow::Owned(joined),
    }
}

fn parts_of(message: &Value) -> Option<&Vec<Value>> {
    message.get("content")?.as_array()
}

fn text_of(part: &Value) -> Option<&str> {
    part.get("text").or(part.get("refusal"))?.as_str()
}

/// The message with the texts of its parts joined, one per line.
fn joined(message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(parts) = parts_of(&message) {
        let text = parts
            .iter()
            .filter_map(text_of)
            .collect::<Vec<_>>()
            .join("\n");
        message["content"] = text.into();
    }
    message
}
