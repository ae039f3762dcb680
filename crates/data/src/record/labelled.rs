//! Single answers with a verdict: good or bad.

use serde_json::Value;

use super::calls::TemplateReads;
use super::{Fields, Record, answered, preference, take, take_list, wrong};
use crate::error::{KeyPath, RowProblem};

/// Columns of the verdict, by tool.
const VERDICTS: [&str; 3] = ["kto_tag", "label", "desirable"];

/// Columns of token ids.
const IDS: [&str; 2] = ["prompt_ids", "completion_ids"];

/// The verdict that a value is: true or false, also as a number or text.
fn verdict(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(verdict) => Some(*verdict),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "1.0" | "good" => Some(true),
            "false" | "0" | "0.0" | "bad" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// The column that says whether the answer of a row is good or bad.
pub(super) fn verdict_among(fields: &Fields) -> Option<&'static str> {
    let is_verdict = |key: &&str| {
        fields
            .get(*key)
            .is_some_and(|value| verdict(value).is_some())
    };
    VERDICTS.into_iter().find(is_verdict)
}

/// Whether the row holds its answer as token ids.
pub(crate) fn has_ids(fields: &Fields) -> bool {
    IDS.iter().all(|key| fields.contains_key(*key))
}

/// Whether the last message of a conversation is the user's.
fn ends_in_a_question(messages: Option<&Value>) -> bool {
    let last = messages.and_then(|messages| messages.as_array()?.last());
    let role = last.and_then(|last| last.get("role").or_else(|| last.get("from")));
    matches!(role.and_then(Value::as_str), Some("user" | "human"))
}

/// Reads an answer with its verdict: a conversation, an alpaca record, or prompt and completion.
pub(super) fn labelled(
    fields: &mut Fields,
    template: Option<&TemplateReads>,
    unused: &mut Vec<String>,
) -> Result<Record, RowProblem> {
    let present = VERDICTS.into_iter().find(|key| fields.contains_key(*key));
    let key = verdict_among(fields).or(present).unwrap_or("label");
    let value = take(fields, key)?;
    let expected = "true, 1 or good, or false, 0 or bad";
    let desirable = verdict(&value).ok_or_else(|| wrong(KeyPath::name(key), expected, &value))?;
    // Other columns may say the same once more, but not the opposite.
    while let Some(other) = verdict_among(fields) {
        let again = take(fields, other)?;
        if verdict(&again) != Some(desirable) {
            return Err(RowProblem::Refused {
                key: KeyPath::name(other),
                why: format!("contradicts `{key}`; leave out one of the two columns"),
            });
        }
    }
    if let Some(key) = ["messages", "conversations"]
        .into_iter()
        .find(|key| ends_in_a_question(fields.get(*key)))
    {
        return Err(RowProblem::Refused {
            key: KeyPath::name(key),
            why:
                "ends in a turn of the user, and the verdict is on an answer; end the conversation \
                  in the answer"
                    .into(),
        });
    }
    let answer = match has_ids(fields) {
        true => {
            let [prompt, answer] = IDS.map(|key| take_list(fields, key));
            preference::prompt_and_answer((IDS[0], &prompt?), (IDS[1], answer?))?
        }
        false => answered(fields, template, unused)?,
    };
    Ok(Record::Labelled {
        desirable,
        answer: Box::new(answer),
    })
}
