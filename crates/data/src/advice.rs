//! Parts of the texts of errors: advice, and lists of names.

use crate::error::{BadRow, RowProblem};
use crate::{Format, Preflight};
use tightrope_report::numbers::counted;

/// Advice for a data set with a few bad rows.
pub(crate) fn hint(bad: &BadRow) -> &'static str {
    match &bad.problem {
        RowProblem::Refused { .. } | RowProblem::BeyondEmbedding { .. } | RowProblem::Comma => "",
        RowProblem::Template(error) if error.lacks => {
            "; `data.chat_template` takes a template without it"
        }
        _ => "; `on_bad_row = \"skip\"` leaves such rows out and counts them",
    }
}

/// Why no token can be trained.
pub(crate) fn nothing(report: &Preflight) -> String {
    match report.sequences {
        0 => "no sequence is left".to_owned(),
        count => format!(
            "no token of {} has a target{}",
            counted(count, "sequence"),
            without_answers(report)
        ),
    }
}

/// Advice for conversations without answers.
pub(crate) fn without_answers(report: &Preflight) -> &'static str {
    let chats = report.files.iter().any(|file| file.format == Format::Chat);
    match chats && report.answers == 0 && report.sequences > 0 {
        true => "; no message has the role `assistant`",
        false => "",
    }
}

pub(crate) fn quoted(names: &[String]) -> String {
    let quoted = names.iter().map(|name| format!("`{name}`"));
    quoted.collect::<Vec<_>>().join(", ")
}

pub(crate) fn and_why(why: &str) -> String {
    match why.is_empty() {
        true => String::new(),
        false => format!(", and there is none: {why}"),
    }
}

pub(crate) fn line_of(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!(", line {line}"),
    }
}

pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}
