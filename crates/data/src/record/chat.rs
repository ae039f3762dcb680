//! Conversations: messages with roles, turns of ShareGPT, and alpaca records as turns.

use serde_json::{Map, Value, json};

use super::calls::{TemplateReads, function_call, normalize_calls, take_tools};
use super::parts::take_parts;
use super::{Fields, absent, is_empty, take_list, take_optional_text, take_text, wrong};
use crate::error::{KeyPath, RowProblem};

/// Messages and the other inputs of the template.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conversation {
    pub messages: Vec<Value>,
    pub tools: Option<Value>,
    pub variables: Fields,
    /// Index of the first message of the completion; without one, only the last assistant turn is
    /// the completion.
    pub completion: Option<usize>,
    /// Messages of the assistant that the data marks as not to be trained.
    pub untrained: Vec<usize>,
}

/// Reads `messages` with `role` and `content`, or ShareGPT's `conversations`, with `system` and
/// `tools` beside them.
pub(super) fn chat(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
    unused: &mut Vec<String>,
) -> Result<Conversation, RowProblem> {
    let key = match fields.contains_key("conversations") && !fields.contains_key("messages") {
        true => "conversations",
        false => "messages",
    };
    let mut reader = Reader::new(template, unused);
    reader.messages(fields, key)?;
    reader.finish(fields)
}

/// Reads `prompt` and `completion` as lists of messages.
pub(super) fn completion(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
    unused: &mut Vec<String>,
) -> Result<Conversation, RowProblem> {
    let mut reader = Reader::new(template, unused);
    reader.messages(fields, "prompt")?;
    reader.conversation.completion = Some(reader.conversation.messages.len());
    reader.messages(fields, "completion")?;
    reader.finish(fields)
}

/// Builds the pairs of `history`, a user's turn (the input below the instruction) and the answer.
pub(super) fn alpaca(
    fields: &mut Fields,
    template: &TemplateReads,
    unused: &mut Vec<String>,
) -> Result<Conversation, RowProblem> {
    let mut reader = Reader::new(Some(template), unused);
    let mut say = |role: &str, content: String| {
        let message = json!({"role": role, "content": content});
        reader.conversation.messages.push(message);
    };
    if fields.get("history").is_some_and(is_empty) {
        fields.shift_remove("history");
    } else if fields.contains_key("history") {
        for (index, pair) in take_list(fields, "history")?.into_iter().enumerate() {
            let path = KeyPath::name("history").then(index);
            let pair: [String; 2] = serde_json::from_value(pair.clone())
                .map_err(|_| wrong(path, "a question and its answer, [\"…\", \"…\"]", &pair))?;
            let [question, answer] = pair;
            say("user", question);
            say("assistant", answer);
        }
    }
    let instruction = take_text(fields, "instruction")?;
    say(
        "user",
        match take_optional_text(fields, "input")? {
            None => instruction,
            Some(input) if instruction.is_empty() => input,
            Some(input) => format!("{instruction}\n{input}"),
        },
    );
    say("assistant", take_text(fields, "output")?);
    reader.finish(fields)
}

/// Builds a conversation and records unused keys.
struct Reader<'a> {
    template: Option<&'a TemplateReads>,
    unused: &'a mut Vec<String>,
    conversation: Conversation,
}

impl<'a> Reader<'a> {
    fn new(template: Option<&'a TemplateReads>, unused: &'a mut Vec<String>) -> Self {
        Self {
            template,
            unused,
            conversation: Conversation::default(),
        }
    }

    /// Without a template nothing is rendered, and nothing is known about its keys.
    fn reads(&self, reads: impl FnOnce(&TemplateReads) -> bool) -> bool {
        self.template.is_none_or(reads)
    }

    fn unused(&mut self, key: String) {
        if !self.unused.contains(&key) {
            self.unused.push(key);
        }
    }

    fn messages(&mut self, fields: &mut Fields, key: &str) -> Result<(), RowProblem> {
        for (index, message) in take_list(fields, key)?.into_iter().enumerate() {
            let path = KeyPath::name(key).then(index);
            let Value::Object(mut message) = message else {
                return Err(wrong(path, "an object", &message));
            };
            let mut null = vec!["role", "from", "value"];
            null.retain(|key| message.get(*key).is_some_and(Value::is_null));
            // A union of layouts leaves keys as null that a template tests with `is defined`.
            message.retain(|key, value| key == "content" || !value.is_null());
            let trained = is_trained(&mut message, &path)?;
            let has = |key| message.contains_key(key);
            let only_from = null.contains(&"from") && !null.contains(&"role");
            let message = match !has("role") && (has("from") || only_from) {
                true => self.turn(key, &path, message, &null)?,
                false => self.message(key, &path, message, &null)?,
            };
            let assistant = message["role"] == "assistant";
            match trained {
                Some((mark, true)) if !assistant => {
                    return Err(RowProblem::Refused {
                        key: path.then(mark),
                        why: "only what the assistant says can be trained; remove the key here"
                            .to_owned(),
                    });
                }
                Some((_, false)) if assistant => {
                    let untrained = &mut self.conversation.untrained;
                    untrained.push(self.conversation.messages.len());
                }
                _ => {}
            }
            self.conversation.messages.push(Value::Object(message));
        }
        Ok(())
    }

    /// Reads a message without changes: content may be text, null or a list of parts, as the
    /// template accepts.
    fn message(
        &mut self,
        list: &str,
        path: &KeyPath,
        mut message: Fields,
        null: &[&str],
    ) -> Result<Fields, RowProblem> {
        let role = match message.get("role") {
            Some(Value::String(role)) => role,
            Some(other) => return Err(wrong(path.then("role"), "a string", other)),
            None => return Err(absent(path, "role", null, &message)),
        };
        // Translates ShareGPT's names and other spellings; a template may have its own name for a
        // tool's result.
        let known = role_of(role).filter(|known| known != role || *known == "function_call");
        match known.filter(|k| *k != "tool" || self.reads(|t| !t.mentions(role))) {
            Some("function_call") => {
                let text = take_optional_text(&mut message, "content")?.unwrap_or_default();
                message.extend(function_call(text, self.template));
            }
            Some(known) => drop(message.insert("role".to_owned(), known.into())),
            None => {}
        }
        match message.get("content") {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(Value::Array(_)) => take_parts(&mut message, path, self.template)?,
            Some(other) => {
                return Err(wrong(path.then("content"), "a string or an array", other));
            }
        }
        normalize_calls(&mut message, self.template);
        // Contents that a template leaves out are counted when its text is rendered.
        let keys = message
            .keys()
            .filter(|key| !["name", "tool_calls"].contains(&key.as_str()));
        for key in keys {
            if !self.reads(|template| template.reads_key_of_message(key)) {
                self.unused(format!("{list}[].{key}"));
            }
        }
        Ok(message)
    }

    /// Translates ShareGPT's `from` and `value` to `role` and `content`.
    fn turn(
        &mut self,
        list: &str,
        path: &KeyPath,
        mut turn: Fields,
        null: &[&str],
    ) -> Result<Fields, RowProblem> {
        turn.retain(|_, value| !value.is_null());
        let mut text = |key: &str| match turn.shift_remove(key) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(wrong(path.then(key), "a string", &other)),
            None => Err(absent(path, key, null, &turn)),
        };
        let speaker = text("from")?;
        let Some(role) = role_of(&speaker) else {
            return Err(RowProblem::Speaker {
                key: path.then("from"),
                speaker,
            });
        };
        let text = text("value")?;
        for key in turn.keys() {
            self.unused(format!("{list}[].{key}"));
        }
        if role == "function_call" {
            return Ok(function_call(text, self.template));
        }
        let entries = [("role", role.into()), ("content", Value::String(text))];
        Ok(entries
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect())
    }

    /// Reads the values beside the messages.
    fn finish(mut self, fields: &mut Fields) -> Result<Conversation, RowProblem> {
        self.system(fields)?;
        self.conversation.tools = take_tools(fields, self.template)?;
        self.conversation.variables = match fields.shift_remove("chat_template_kwargs") {
            None => Map::new(),
            Some(Value::Object(variables)) => variables,
            Some(value) => {
                let key = KeyPath::name("chat_template_kwargs");
                return Err(wrong(key, "an object", &value));
            }
        };
        let variables: Vec<String> = self.conversation.variables.keys().cloned().collect();
        for name in variables {
            if !self.reads(|template| template.mentions(&name)) {
                self.unused(format!("chat_template_kwargs.{name}"));
            }
        }
        Ok(self.conversation)
    }

    /// A system prompt beside the messages is put first; a system message in the conversation wins.
    fn system(&mut self, fields: &mut Fields) -> Result<(), RowProblem> {
        let Some(system) = take_optional_text(fields, "system")? else {
            return Ok(());
        };
        let conversation = &mut self.conversation;
        let first = conversation.messages.first();
        if first.is_some_and(|m| m["role"] == "system" || m["role"] == "developer") {
            if first.is_some_and(|m| m["content"] != system.as_str()) {
                self.unused("system".to_owned());
            }
            return Ok(());
        }
        let message = json!({"role": "system", "content": system});
        conversation.messages.insert(0, message);
        conversation.completion = conversation.completion.map(|first| first + 1);
        conversation
            .untrained
            .iter_mut()
            .for_each(|index| *index += 1);
        Ok(())
    }
}

/// The role of a speaker, by the names that other tools use.
fn role_of(speaker: &str) -> Option<&'static str> {
    Some(match speaker.to_ascii_lowercase().as_str() {
        "human" | "user" => "user",
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" | "model" | "bot" | "chatbot" => {
            "assistant"
        }
        "function_call" => "function_call",
        "system" => "system",
        "tool" | "observation" | "function_response" => "tool",
        _ => return None,
    })
}

/// Takes the marks that say whether a message is trained: `weight` or `loss_weight` of 0 or 1,
/// `train` or `loss` of true or false. Returns the key that decides.
fn is_trained(
    message: &mut Fields,
    path: &KeyPath,
) -> Result<Option<(&'static str, bool)>, RowProblem> {
    let refuse = |key: &str, why: &str| RowProblem::Refused {
        key: path.then(key),
        why: why.to_owned(),
    };
    let mut trained: Option<(&'static str, bool)> = None;
    for key in ["weight", "loss_weight", "train", "loss"] {
        let mark = match message.get(key) {
            None => continue,
            Some(Value::Bool(mark)) => *mark,
            // A loss that was measured is no mark.
            Some(_) if key == "loss" => continue,
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => false,
            Some(Value::Number(number)) if number.as_f64() == Some(1.0) => true,
            Some(_) => {
                let why = "must be 0 (not trained) or 1 (trained): answers cannot be weighted";
                return Err(refuse(key, why));
            }
        };
        message.shift_remove(key);
        if trained.is_none_or(|(_, before)| before) {
            trained = Some((key, mark));
        }
    }
    if message
        .get("train_detail")
        .is_some_and(|detail| !is_empty(detail))
    {
        let why = "parts of a message cannot be left out of training; remove the key, or set \
                   `train` to false for the whole message";
        return Err(refuse("train_detail", why));
    }
    message.shift_remove("train_detail");
    Ok(trained)
}
