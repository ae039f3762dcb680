//! Pairs of answers to one prompt, of which one is better.

use serde_json::Value;

use super::calls::TemplateReads;
use super::tokens::TwoColumns;
use super::{Fields, Record, alpaca, completion, take, take_list, wrong};
use crate::error::{Key, KeyPath, RowProblem};

/// Columns of the better and of the worse answer, by tool.
const ANSWERS: [(&str, &str); 4] = [
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_messages", "rejected_messages"),
];

/// Columns of token ids: prompt, better and worse answer.
const IDS: [[&str; 3]; 2] = [
    ["prompt_ids", "chosen_ids", "rejected_ids"],
    ["prompt_input_ids", "chosen_input_ids", "rejected_input_ids"],
];

/// The columns of token ids that are there.
fn ids_among(has: impl Fn(&str) -> bool) -> Option<&'static [&'static str; 3]> {
    IDS.iter().find(|keys| keys.iter().all(|key| has(key)))
}

/// The columns of answers that are there.
fn answers_among(has: impl Fn(&str) -> bool) -> Option<&'static (&'static str, &'static str)> {
    ANSWERS
        .iter()
        .find(|(chosen, rejected)| has(chosen) && has(rejected))
}

/// Whether the row holds a pair as token ids.
pub(super) fn has_ids(fields: &Fields) -> bool {
    ids_among(|key| fields.contains_key(key)).is_some()
}

/// Whether these keys are those of a pair.
pub(super) fn has_pair(has: impl Fn(&str) -> bool) -> bool {
    ids_among(&has).is_some() || answers_among(&has).is_some()
}

/// Reads a pair. The prompt is `prompt`, `messages`, `conversations`, `input.messages`, an alpaca
/// record, or else the messages that both conversations begin with.
pub(super) fn preference(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
    unused: &mut Vec<String>,
) -> Result<Record, RowProblem> {
    let has = |key: &str| fields.contains_key(key);
    if let Some(keys) = ids_among(has) {
        return ids(fields, keys);
    }
    // If one answer is missing, the error names it.
    let either = |(chosen, rejected): &&(&str, &str)| has(chosen) || has(rejected);
    let (chosen_key, rejected_key) = answers_among(has)
        .or_else(|| ANSWERS.iter().find(either))
        .unwrap_or(&ANSWERS[0]);
    let chosen = answer(fields, chosen_key)?;
    let rejected = answer(fields, rejected_key)?;
    let layout = Layout::take(fields, [chosen_key, rejected_key], [&chosen, &rejected])?;
    let side = |answer: Value, key: &str, unused: &mut Vec<String>| {
        let mut own = fields.clone();
        // The answer takes the place of these.
        let replaced = match layout {
            Layout::Alpaca => own.shift_remove("output").map(|_| "output"),
            _ => own.shift_remove("completion").map(|_| "completion"),
        };
        unused.extend(replaced.map(str::to_owned));
        let mut inner = Vec::new();
        let record = layout.record(&mut own, answer, template, &mut inner);
        unused.extend(inner.into_iter().map(|name| layout.name_in_row(name, key)));
        match record {
            Ok(record) => Ok((record, own)),
            Err(problem) => Err(problem.with_key(|path| layout.path_in_row(path, key))),
        }
    };
    let (chosen, left) = side(chosen, chosen_key, unused)?;
    let mut of_rejected = Vec::new();
    let (rejected, _) = side(rejected, rejected_key, &mut of_rejected)?;
    of_rejected.retain(|key| !unused.contains(key));
    unused.extend(of_rejected);
    *fields = left;
    Ok(Record::Preference {
        chosen: Box::new(chosen),
        rejected: Box::new(rejected),
    })
}

fn ids(fields: &mut Fields, keys: &[&'static str; 3]) -> Result<Record, RowProblem> {
    let mut list = |key: &'static str| -> Result<Vec<Value>, RowProblem> { take_list(fields, key) };
    let [prompt, chosen, rejected] = [list(keys[0])?, list(keys[1])?, list(keys[2])?];
    let side = |answer: Vec<Value>, key: &'static str| {
        prompt_and_answer((keys[0], &prompt), (key, answer)).map(Box::new)
    };
    Ok(Record::Preference {
        chosen: side(chosen, keys[1])?,
        rejected: side(rejected, keys[2])?,
    })
}

/// Token ids in two columns, of which those of the answer are trained.
pub(super) fn prompt_and_answer(
    (prompt_key, prompt): (&'static str, &[Value]),
    (key, answer): (&'static str, Vec<Value>),
) -> Result<Record, RowProblem> {
    let columns = TwoColumns {
        prompt: prompt_key,
        length: prompt.len(),
        answer: key,
    };
    let mut labels: Vec<Value> = vec![(-100).into(); prompt.len()];
    labels.extend(answer.iter().cloned());
    let ids = prompt.iter().cloned().chain(answer).collect();
    let mut own = Fields::new();
    own.insert("input_ids".into(), Value::Array(ids));
    own.insert("labels".into(), Value::Array(labels));
    let mut parts = super::tokens::tokens(&mut own).map_err(|problem| {
        problem.with_key(|path| match path.0[..] {
            [_, Key::Index(index)] => columns.place(index),
            _ => KeyPath::name(key),
        })
    })?;
    parts
        .iter_mut()
        .for_each(|part| part.columns = Some(columns));
    Ok(Record::Tokens(parts))
}

/// An answer: text, or messages; a single message becomes a list.
fn answer(fields: &mut Fields, key: &str) -> Result<Value, RowProblem> {
    match take(fields, key)? {
        Value::Object(message) => Ok(Value::Array(vec![Value::Object(message)])),
        Value::String(text) if is_message(&text) => match serde_json::from_str(&text) {
            Ok(Value::Array(messages)) => Ok(Value::Array(messages)),
            Ok(message) => Ok(Value::Array(vec![message])),
            Err(_) => Ok(Value::String(text)),
        },
        value @ (Value::String(_) | Value::Array(_)) => Ok(value),
        other => Err(wrong(KeyPath::name(key), "text or messages", &other)),
    }
}

/// Whether the text is a message or a list of messages as JSON, as in CSV.
fn is_message(text: &str) -> bool {
    let text = text.trim();
    let inner = text.strip_prefix('[').unwrap_or(text).trim_start();
    let begins = ["{\"role\"", "{\"from\"", "{\"content\"", "{\"value\""];
    text.ends_with(['}', ']']) && begins.iter().any(|start| inner.starts_with(start))
}

/// Keys of the messages in OpenAI's layout.
const INPUT: &[&str] = &["input", "messages"];

/// Place of the prompt.
enum Layout {
    /// `prompt`, text or messages.
    Prompt,
    /// `instruction` and the keys beside it.
    Alpaca,
    /// Messages, taken out of the row, and their keys in it.
    Messages(Vec<Value>, &'static [&'static str]),
    /// Both answers are conversations; this many messages are the same.
    Conversations(usize),
}

impl Layout {
    fn take(
        fields: &mut Fields,
        keys: [&str; 2],
        answers: [&Value; 2],
    ) -> Result<Self, RowProblem> {
        let [chosen, rejected] = answers.map(|answer| answer.as_array().map_or(&[][..], |a| a));
        let same = chosen.iter().zip(rejected).take_while(|(a, b)| a == b);
        // At least the last message of each is its answer.
        let most = chosen.len().min(rejected.len()).saturating_sub(1);
        let same = same.count().min(most);
        let system = |answer: &[Value]| {
            let first = answer.first().cloned();
            first.filter(|first| {
                let role = first.get("role").or_else(|| first.get("from"));
                role.is_some_and(|role| role == "system" || role == "developer")
            })
        };
        if fields.contains_key("prompt") && system(chosen) != system(rejected) {
            return Err(RowProblem::Refused {
                key: KeyPath::name(keys[1]).then(0),
                why: format!(
                    "has another system prompt than `{}[0]`, so the two are no answers to one prompt",
                    keys[0]
                ),
            });
        }
        if let Some(prompt) = fields.get("prompt") {
            // Whole conversations, with their beginning once more beside them.
            let repeated = match prompt {
                Value::String(text) => chosen[..same].last().is_some_and(|last| {
                    ["content", "value"].iter().any(|key| last[*key] == **text)
                }),
                Value::Array(prompt) => !prompt.is_empty() && chosen[..same] == prompt[..],
                _ => false,
            };
            if !repeated {
                return Ok(Self::Prompt);
            }
            fields.shift_remove("prompt");
            return Ok(Self::Conversations(same));
        }
        if let Some(Value::Object(input)) = fields.get_mut("input")
            && input.contains_key("messages")
        {
            let messages = take_list(input, "messages")?;
            let Some(Value::Object(input)) = fields.shift_remove("input") else {
                return Ok(Self::Messages(messages, INPUT));
            };
            fields.extend(input);
            return Ok(Self::Messages(messages, INPUT));
        }
        for keys in [&["messages"], &["conversations"]] {
            if fields.contains_key(keys[0]) {
                return Ok(Self::Messages(take_list(fields, keys[0])?, keys));
            }
        }
        if fields.contains_key("instruction") {
            return Ok(Self::Alpaca);
        }
        for (key, answer) in keys.into_iter().zip(answers) {
            if !answer.is_array() {
                let expected = "a conversation, because the row has no `prompt`";
                return Err(wrong(KeyPath::name(key), expected, answer));
            }
        }
        if same == 0 {
            return Err(RowProblem::Refused {
                key: KeyPath::name(keys[0]).then(0),
                why: format!(
                    "differs from `{}[0]`, so the two are no answers to one prompt; let both \
                     conversations begin alike, or give the `prompt`",
                    keys[1]
                ),
            });
        }
        Ok(Self::Conversations(same))
    }

    /// The path in the row of a value in the record of the answer `key`.
    fn path_in_row(&self, path: &KeyPath, key: &str) -> KeyPath {
        let Some((Key::Name(first), rest)) = path.0.split_first() else {
            return path.clone();
        };
        let answer = matches!(
            (self, first.as_str()),
            (Self::Alpaca, "output") | (_, "completion")
        );
        let mut rest = rest.to_vec();
        let names: &[&str] = match (self, first.as_str()) {
            _ if answer => &[key],
            (Self::Messages(_, names), "prompt") => names,
            // Both conversations begin with it.
            (Self::Conversations(_), "prompt") => &[key],
            _ => return path.clone(),
        };
        if let (Self::Conversations(same), true, Some(Key::Index(index))) =
            (self, answer, rest.first_mut())
        {
            *index += same;
        }
        let names = names.iter().map(|name| Key::from(*name));
        KeyPath(names.chain(rest).collect())
    }

    /// A key that was not used, such as `completion[].name`, as the row has it.
    fn name_in_row(&self, name: String, key: &str) -> String {
        let Some((list, rest)) = name.split_once("[]") else {
            return name;
        };
        let path = self.path_in_row(&KeyPath::name(list), key);
        format!("{path}[]{rest}")
    }

    /// The record of one answer.
    fn record(
        &self,
        fields: &mut Fields,
        answer: Value,
        template: Option<&TemplateReads>,
        unused: &mut Vec<String>,
    ) -> Result<Record, RowProblem> {
        match self {
            Self::Alpaca => {
                let text = match answer {
                    Value::String(text) => text,
                    other => {
                        let key = KeyPath::name("chosen");
                        return Err(wrong(key, "text, like the instruction", &other));
                    }
                };
                fields.insert("output".into(), Value::String(text));
                alpaca(fields, template, unused)
            }
            Self::Prompt => {
                // Text beside messages is the answer of the assistant.
                let is_text = fields.get("prompt").is_some_and(Value::is_string);
                fields.insert("completion".into(), spoken(answer, is_text));
                completion(fields, template, unused)
            }
            Self::Messages(prompt, _) => {
                fields.insert("prompt".into(), Value::Array(prompt.clone()));
                fields.insert("completion".into(), spoken(answer, false));
                completion(fields, template, unused)
            }
            Self::Conversations(same) => {
                let mut messages = match answer {
                    Value::Array(messages) => messages,
                    other => vec![other],
                };
                let answer = messages.split_off(*same);
                fields.insert("prompt".into(), Value::Array(messages));
                fields.insert("completion".into(), Value::Array(answer));
                completion(fields, template, unused)
            }
        }
    }
}

/// The answer as messages, unless the prompt is text too.
fn spoken(answer: Value, prompt_is_text: bool) -> Value {
    let is_said = answer.is_string() && !prompt_is_text && !super::holds_messages(&answer);
    match is_said {
        true => serde_json::json!([{"role": "assistant", "content": answer}]),
        false => answer,
    }
}
