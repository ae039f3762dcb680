//! Contents of a conversation that its rendering lacks: templates leave out keys that they do not
//! know.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::TemplateReads;

/// Number of conversations that lost each kind of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// A tool does not appear.
    pub tools: u64,
    /// A system message does not appear.
    pub system: u64,
    /// Another message does not appear, such as the result of a tool. Only calls and names of the
    /// assistant's messages count, because templates rightly leave out earlier reasoning.
    pub messages: u64,
    /// A call of a tool does not appear.
    pub tool_calls: u64,
    /// A `name` of a speaker does not appear.
    pub names: u64,
    /// The thinking of a trained answer does not appear.
    pub thinking: u64,
}

impl Dropped {
    /// Counts the thinking of a trained answer, beside its content or in `<think>`, that is not in the
    /// text. A key that the template does not read at all is counted as not used instead.
    pub(crate) fn add_thinking(&mut self, answers: &[&Value], text: &str, reads: &TemplateReads) {
        let mut search = Search { text, from: 0 };
        for answer in answers {
            let beside = ["reasoning_content", "reasoning", "thinking"];
            let beside = beside.iter().filter(|key| reads.reads_key_of_message(key));
            let beside = beside.map(|key| answer.get(*key));
            let inside = answer
                .get("content")
                .and_then(Value::as_str)
                .and_then(|content| {
                    let (_, thinking) = content.split_once("<think>")?;
                    let end = thinking.find("</think>").unwrap_or(thinking.len());
                    Some(Value::from(&thinking[..end]))
                });
            let mut all = beside.chain([inside.as_ref()]);
            self.thinking |= u64::from(!all.all(|thinking| search.finds(thinking)));
        }
    }

    /// Compares one conversation with its text, by the longest word of each part. The same word may
    /// stand elsewhere: what the template cannot see is left out in any case.
    pub(crate) fn from(
        messages: &[Value],
        tools: Option<&Value>,
        text: &str,
        reads: &TemplateReads,
    ) -> Self {
        let mut search = Search { text, from: 0 };
        let function = |value: &Value| value.get("function").unwrap_or(value).get("name").cloned();
        // A template that prints messages whole prints their keys in quotes.
        let printed = |key: &str| {
            ['"', '\'']
                .iter()
                .any(|q| text.contains(&format!("{q}{key}{q}")))
        };
        let sees = |key: &str| reads.mentions(key) || printed(key);
        let mut dropped = Self::default();
        for message in messages {
            let role = message.get("role").and_then(Value::as_str);
            let count = match role {
                Some("system" | "developer") => Some(&mut dropped.system),
                Some("assistant") => None,
                _ => Some(&mut dropped.messages),
            };
            if let Some(count) = count {
                *count |= u64::from(!search.finds(message.get("content")));
            }
            let name = message.get("name");
            dropped.names |= u64::from(!search.finds(name) || name.is_some() && !sees("name"));
            let calls = message.get("tool_calls").and_then(Value::as_array);
            for call in calls.into_iter().flatten() {
                let found = sees("tool_calls") && search.finds(function(call).as_ref());
                dropped.tool_calls |= u64::from(!found);
            }
        }
        search.from = 0;
        for tool in tools.and_then(Value::as_array).into_iter().flatten() {
            let found = reads.mentions("tools") && search.finds(function(tool).as_ref());
            dropped.tools |= u64::from(!found);
        }
        dropped
    }

    /// Adds the counts of another conversation.
    pub(crate) fn add(&mut self, other: &Self) {
        self.tools += other.tools;
        self.system += other.system;
        self.messages += other.messages;
        self.tool_calls += other.tool_calls;
        self.names += other.names;
        self.thinking += other.thinking;
    }

    /// A note about each kind, with its number of rows.
    pub fn notes(&self) -> [(u64, &'static str); 6] {
        [
            (self.tools, "with `tools` that the chat template leaves out"),
            (
                self.system,
                "with a system message that the chat template leaves out",
            ),
            (
                self.messages,
                "with messages (not the assistant's) that the chat template leaves out",
            ),
            (
                self.tool_calls,
                "with `tool_calls` that the chat template leaves out",
            ),
            (
                self.names,
                "with messages with a `name` that the chat template leaves out",
            ),
            (
                self.thinking,
                "with trained answers whose thinking the chat template leaves out: the model learns to \
                 answer without it",
            ),
        ]
    }
}

/// Searches words in the order of the messages first, so that a long conversation is read once.
struct Search<'a> {
    text: &'a str,
    from: usize,
}

impl Search<'_> {
    fn finds(&mut self, content: Option<&Value>) -> bool {
        let texts: Vec<&str> = match content {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(parts)) => {
                let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
                texts.collect()
            }
            _ => Vec::new(),
        };
        texts.into_iter().all(|text| {
            let words = text.split(|c: char| !c.is_alphanumeric());
            let Some(word) = words.max_by_key(|word| word.len()) else {
                return true;
            };
            match self.text[self.from..].find(word) {
                Some(at) => {
                    self.from += at + word.len();
                    true
                }
                None => self.text.contains(word),
            }
        })
    }
}
