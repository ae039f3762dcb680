//! Refuses data of other training methods, which would be trained as something else.

use serde_json::Value;

use super::{Fields, is_empty};
use crate::error::{KeyPath, RowProblem};
use crate::options::Format;

/// Columns with two answers of which one is better.
const PREFERENCE: [&str; 11] = [
    "chosen",
    "rejected",
    "chosen_response",
    "rejected_response",
    "rejected_messages",
    "chosen_input_ids",
    "rejected_input_ids",
    "chosen_ids",
    "rejected_ids",
    "preferred_output",
    "non_preferred_output",
];

/// Columns that say whether an answer is good or bad.
const VERDICTS: [&str; 3] = ["kto_tag", "label", "desirable"];

/// Columns that are not text.
const MEDIA: [&str; 6] = ["images", "image", "videos", "video", "audios", "audio"];

/// Explains why a row of another method, or without text, is not read.
pub(crate) fn refused(fields: &Fields, format: Format) -> Option<RowProblem> {
    let full = |key: &str| fields.get(key).filter(|value| !is_empty(value));
    let found =
        |keys: &'static [&'static str]| keys.iter().copied().find(|key| full(key).is_some());
    let answers = matches!(format, Format::Alpaca | Format::Chat | Format::Completion);
    let says = |key: &&str| full(key).is_some_and(|value| is_verdict(key, value, answers));
    let verdict = VERDICTS.into_iter().find(says);
    let pairs = format == Format::Preference;
    let answers = answers || pairs;
    let (key, why) = if let Some(key) = found(&PREFERENCE).filter(|_| !pairs) {
        let why = "one of a pair of answers, but the file is not read as pairs; give both `chosen` \
                   and `rejected` in its first rows, or set `data.format` = \"preference\"; or write \
                   the better answer as the answer of an ordinary record";
        (key, why)
    } else if let Some(key) = verdict.filter(|_| !pairs) {
        let why = "says whether the answer is a good or a bad one (KTO), and bad answers cannot \
                   be trained against here; keep the rows with good answers, without this column";
        (key, why)
    } else if let Some(key) = found(&MEDIA).filter(|_| answers) {
        (
            key,
            "only text can be trained; leave out the rows that have this column",
        )
    } else {
        return None;
    };
    Some(RowProblem::Refused {
        key: KeyPath::name(key),
        why: why.to_owned(),
    })
}

/// Whether a column says that an answer is good or bad: as true or false, and beside an answer also
/// as a number or text. The class of a text does not count.
fn is_verdict(key: &str, label: &Value, answers: bool) -> bool {
    if key == "kto_tag" {
        return true;
    }
    match label {
        Value::Bool(_) => true,
        Value::Number(number) => answers && matches!(number.as_i64(), Some(0 | 1)),
        Value::String(text) => {
            answers
                && matches!(
                    text.to_ascii_lowercase().as_str(),
                    "true" | "false" | "0" | "1"
                )
        }
        _ => false,
    }
}
