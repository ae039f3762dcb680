//! Refuses data of other training methods, which would be trained as something else.

use super::{Fields, is_empty, labelled::verdict_among};
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

/// Columns that are not text.
const MEDIA: [&str; 6] = ["images", "image", "videos", "video", "audios", "audio"];

/// Explains why a row of another method, or without text, is not read.
pub(crate) fn refused(fields: &Fields, format: Format) -> Option<RowProblem> {
    let full = |key: &str| fields.get(key).filter(|value| !is_empty(value));
    let found =
        |keys: &'static [&'static str]| keys.iter().copied().find(|key| full(key).is_some());
    let single = matches!(format, Format::Alpaca | Format::Chat | Format::Completion);
    let pairs = format == Format::Preference;
    let answers = single || pairs || format == Format::Labelled;
    let verdict = verdict_among(fields).filter(|key| {
        // The class of a text may be a number.
        let is_plain = *key == "kto_tag" || fields[*key].is_boolean();
        single || is_plain && !matches!(format, Format::Labelled | Format::Preference)
    });
    let (key, why) = if let Some(key) = found(&PREFERENCE).filter(|_| !pairs) {
        let why = "one of a pair of answers, but the file is not read as pairs; give both `chosen` \
                   and `rejected` in its first rows, or set `data.format` = \"preference\"; or write \
                   the better answer as the answer of an ordinary record";
        (key, why)
    } else if let Some(key) = verdict {
        let why = "says whether the answer is a good or a bad one, but the file is not read as \
                   such answers; set `data.format` = \"labelled\" (and `objective.kind` = \"kto\"), \
                   or keep the rows with good answers, without this column";
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
