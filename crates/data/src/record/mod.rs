//! Turns rows into records: the keys of each layout, their allowed values, and the keys that are
//! left over.

mod calls;
mod chat;
mod labelled;
mod parts;
mod preference;
mod refused;
mod tokens;

use serde_json::{Map, Value};

pub(crate) use calls::TemplateReads;
pub(crate) use chat::Conversation;
pub(crate) use refused::refused;
pub(crate) use tokens::Tokens;

use crate::error::{KeyPath, RowProblem};
use crate::options::Format;
use crate::source::type_name;

type Fields = Map<String, Value>;

/// One example, before any text becomes tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// Usually one sequence; several if the row was packed before.
    Tokens(Vec<Tokens>),
    Text(String),
    Completion {
        prompt: String,
        completion: String,
    },
    /// Without a chat template, which would turn it into a conversation.
    Alpaca {
        instruction: String,
        input: String,
        output: String,
    },
    Chat(Conversation),
    /// Two answers to one prompt.
    Preference {
        chosen: Box<Record>,
        rejected: Box<Record>,
    },
    /// An answer that is good or bad.
    Labelled {
        desirable: bool,
        answer: Box<Record>,
    },
}

impl Record {
    /// Whether the answer is good, if the record says so.
    pub(crate) fn desirable(&self) -> Option<bool> {
        match self {
            Self::Labelled { desirable, .. } => Some(*desirable),
            _ => None,
        }
    }
}

/// A record, with the keys of its row that it does not use.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub record: Record,
    pub unused: Vec<String>,
}

/// The format whose keys are there; `judged`: a column says whether the answers are good or bad. An
/// alpaca file may also have a rendered `text`, and a chat file may have a `prompt`, so the richer
/// format is tried first.
pub(crate) fn detect(keys: &[&str], judged: bool) -> Option<Format> {
    let has = |key: &str| keys.contains(&key);
    if preference::has_pair(has) {
        Some(Format::Preference)
    } else if judged && (has_answer(has) || has("completion_ids")) {
        Some(Format::Labelled)
    } else if has("input_ids") {
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

/// Whether a row with these keys has an answer, in one of the layouts of [`answered`].
fn has_answer(has: impl Fn(&str) -> bool) -> bool {
    has("messages")
        || has("conversations")
        || has("instruction") && has("output")
        || has("prompt") && has("completion")
}

/// Whether a column of the row says that its answer is good or bad.
pub(crate) fn is_judged(fields: &Fields) -> bool {
    labelled::verdict_among(fields).is_some()
}

/// Whether the row holds its answers as token ids.
pub(crate) fn has_ids(fields: &Fields) -> bool {
    preference::has_ids(fields) || labelled::has_ids(fields)
}

/// Keys without which a row is no record of the format.
fn required(fields: &Fields, format: Format) -> &'static [&'static str] {
    match format {
        Format::Tokens => &["input_ids"],
        Format::Chat => {
            let has = |key| fields.get(key).is_some_and(|value| !value.is_null());
            let names = !fields.contains_key("messages") && fields.contains_key("conversations");
            match has("conversations") && !has("messages") || names {
                true => &["conversations"],
                false => &["messages"],
            }
        }
        Format::Alpaca => &["instruction", "output"],
        Format::Completion => &["prompt", "completion"],
        Format::Text => &["text"],
        Format::Preference | Format::Labelled | Format::Auto => &[],
    }
}

/// Reads a row in the layout `format`. A key with the value null counts as absent, because a union
/// of several layouts leaves such keys.
pub(crate) fn parse(
    mut fields: Fields,
    format: Format,
    template: Option<&TemplateReads>,
) -> Result<Parsed, RowProblem> {
    let is_null = |key: &&str| fields.get(*key).is_some_and(Value::is_null);
    let null: Vec<&str> = required(&fields, format)
        .iter()
        .copied()
        .filter(is_null)
        .collect();
    fields.retain(|_, value| !value.is_null());
    if let Some(problem) = refused(&fields, format) {
        return Err(problem);
    }
    if let Some(key) = null.first() {
        let key = KeyPath::name(key);
        return Err(RowProblem::Null { key });
    }
    // Readers take the keys one by one; the error names all that the row has.
    let absent = |key: &&&str| !fields.contains_key(**key);
    if let Some(key) = required(&fields, format).iter().find(absent) {
        return Err(missing_key(&fields, key));
    }
    let mut unused = Vec::new();
    let record = match format {
        Format::Tokens => Record::Tokens(tokens::tokens(&mut fields)?),
        Format::Text => Record::Text(take_text(&mut fields, "text")?),
        Format::Alpaca => alpaca(&mut fields, template, &mut unused)?,
        Format::Completion => completion(&mut fields, template, &mut unused)?,
        Format::Chat => Record::Chat(chat::chat(&mut fields, template, &mut unused)?),
        Format::Preference => preference::preference(&mut fields, template, &mut unused)?,
        Format::Labelled => labelled::labelled(&mut fields, template, &mut unused)?,
        Format::Auto => unreachable!("decided per file before rows are parsed"),
    };
    unused.splice(0..0, fields.into_iter().map(|(key, _)| key));
    Ok(Parsed { record, unused })
}

/// Reads a row with one answer, in the layout that its keys name.
fn answered(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
    unused: &mut Vec<String>,
) -> Result<Record, RowProblem> {
    let has = |key: &str| fields.contains_key(key);
    if has("messages") || has("conversations") {
        chat::chat(fields, template, unused).map(Record::Chat)
    } else if has("instruction") {
        alpaca(fields, template, unused)
    } else {
        completion(fields, template, unused)
    }
}

fn alpaca(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
    unused: &mut Vec<String>,
) -> Result<Record, RowProblem> {
    if let Some(template) = template {
        return chat::alpaca(fields, template, unused).map(Record::Chat);
    }
    without_template(fields, "alpaca records without a chat template")?;
    Ok(Record::Alpaca {
        instruction: take_text(fields, "instruction")?,
        input: take_optional_text(fields, "input")?.unwrap_or_default(),
        output: take_text(fields, "output")?,
    })
}

fn completion(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
    unused: &mut Vec<String>,
) -> Result<Record, RowProblem> {
    let prompt = get(fields, "prompt")?;
    let completion = get(fields, "completion")?;
    if prompt.is_string() && completion.is_string() && !holds_messages(completion) {
        without_template(fields, "a prompt and a completion of plain text")?;
        return Ok(Record::Completion {
            prompt: take_text(fields, "prompt")?,
            completion: take_text(fields, "completion")?,
        });
    }
    // The one that can be neither text nor messages is the wrong one.
    let mut both = [("prompt", prompt), ("completion", completion)];
    both.sort_by_key(|(_, value)| value.is_string());
    for (key, value) in both {
        if !value.is_array() && !holds_messages(value) {
            let expected = "a string, or an array of messages like the other";
            return Err(wrong(KeyPath::name(key), expected, value));
        }
    }
    chat::completion(fields, template, unused).map(Record::Chat)
}

/// Whether the value is a list of messages as JSON text, as in CSV.
fn holds_messages(value: &Value) -> bool {
    let text = value.as_str().map(str::trim_start);
    text.is_some_and(|text| text.starts_with("[{\"role\"") && text.trim_end().ends_with("}]"))
}

/// Refuses values that need a chat template, unless they are absent or empty.
fn without_template(fields: &mut Fields, layout: &str) -> Result<(), RowProblem> {
    for key in ["system", "history", "tools"] {
        match fields.shift_remove(key) {
            Some(value) if !is_empty(&value) => {
                return Err(RowProblem::Refused {
                    key: KeyPath::name(key),
                    why: format!(
                        "{layout} have no place for it; write the records as `messages`, or set \
                         `chat_template`"
                    ),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a value has no content.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => matches!(text.trim(), "" | "[]" | "null"),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn get<'a>(fields: &'a Fields, key: &str) -> Result<&'a Value, RowProblem> {
    fields.get(key).ok_or_else(|| missing_key(fields, key))
}

fn take(fields: &mut Fields, key: &str) -> Result<Value, RowProblem> {
    get(fields, key)?;
    Ok(fields.shift_remove(key).unwrap_or_default())
}

fn missing_key(fields: &Fields, key: &str) -> RowProblem {
    missing(KeyPath::name(key), fields)
}

fn missing(key: KeyPath, fields: &Fields) -> RowProblem {
    RowProblem::Missing {
        key,
        saw: fields.keys().cloned().collect(),
    }
}

/// A required key of a message that is absent, or `null`: nulls are removed before.
fn absent(path: &KeyPath, key: &str, null: &[&str], fields: &Fields) -> RowProblem {
    let path = path.then(key);
    match null.contains(&key) {
        true => RowProblem::Null { key: path },
        false => missing(path, fields),
    }
}

fn wrong(key: KeyPath, expected: &'static str, got: &Value) -> RowProblem {
    RowProblem::WrongType {
        key,
        expected,
        got: type_name(got),
    }
}

fn take_text(fields: &mut Fields, key: &str) -> Result<String, RowProblem> {
    match take(fields, key)? {
        Value::String(text) => Ok(text),
        other => Err(wrong(KeyPath::name(key), "a string", &other)),
    }
}

/// Takes the text; `None` if it is absent or empty.
fn take_optional_text(fields: &mut Fields, key: &str) -> Result<Option<String>, RowProblem> {
    if !fields.contains_key(key) {
        return Ok(None);
    }
    take_text(fields, key).map(|text| Some(text).filter(|text| !text.is_empty()))
}

/// Takes a list, or a text that holds one as JSON (as in CSV).
fn take_list(fields: &mut Fields, key: &str) -> Result<Vec<Value>, RowProblem> {
    match take(fields, key)? {
        Value::Array(list) => Ok(list),
        Value::String(text) => serde_json::from_str(&text).map_err(|_| {
            wrong(
                KeyPath::name(key),
                "an array, or its JSON",
                &Value::String(text),
            )
        }),
        other => Err(wrong(KeyPath::name(key), "an array", &other)),
    }
}
