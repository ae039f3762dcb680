//! Rows of tokens: ids, labels, masks, and the boundaries of several sequences.

use std::ops::Range;

use serde_json::Value;
use tightrope_packing::IGNORED;

use super::{Fields, take_list, wrong};
use crate::error::{KeyPath, RowProblem};
use tightrope_report::numbers::counted;

/// A sequence with unshifted labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tokens {
    pub ids: Vec<u32>,
    pub labels: Vec<i64>,
    /// Index of the first token in the row.
    pub start: usize,
    /// Whether the labels come from the row and not from the ids.
    pub labelled: bool,
    /// Columns of the ids, if they are not `input_ids`.
    pub columns: Option<TwoColumns>,
}

/// Ids of a prompt and of an answer to it, from a column each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TwoColumns {
    pub prompt: &'static str,
    /// Number of ids of the prompt.
    pub length: usize,
    pub answer: &'static str,
}

impl TwoColumns {
    /// The place in the row of one of the ids.
    pub(crate) fn place(self, index: usize) -> KeyPath {
        match index.checked_sub(self.length) {
            None => KeyPath::name(self.prompt).then(index),
            Some(index) => KeyPath::name(self.answer).then(index),
        }
    }
}

/// A token is trained only if each of these masks that the row has is 1 for it.
const MASKS: [&str; 4] = [
    "completion_mask",
    "assistant_masks",
    "assistant_mask",
    "loss_mask",
];

/// Columns that would change the training in ways that are not supported.
const UNKNOWN: [(&str, &str); 9] = [
    ("shift_labels", "give `labels`, which are not shifted"),
    (
        "loss_weights",
        "tokens cannot be weighted; give `labels` or a mask of 0 and 1",
    ),
    (
        "loss_scale",
        "tokens cannot be weighted; give `labels` or a mask of 0 and 1",
    ),
    (
        "cu_seqlens",
        "say where sequences begin by `seq_lengths` or `position_ids`",
    ),
    (
        "cu_seq_lens_q",
        "say where sequences begin by `seq_lengths` or `position_ids`",
    ),
    (
        "seq_idx",
        "say where sequences begin by `seq_lengths` or `position_ids`",
    ),
    (
        "sequence_ids",
        "say where sequences begin by `seq_lengths` or `position_ids`",
    ),
    (
        "segment_ids",
        "say where sequences begin by `seq_lengths` or `position_ids`",
    ),
    (
        "document_ids",
        "say where sequences begin by `seq_lengths` or `position_ids`",
    ),
];

pub(super) fn tokens(fields: &mut Fields) -> Result<Vec<Tokens>, RowProblem> {
    for (key, why) in UNKNOWN {
        if fields.contains_key(key) {
            return Err(RowProblem::Refused {
                key: KeyPath::name(key),
                why: why.to_owned(),
            });
        }
    }
    let ids = integers(fields, "input_ids")?.into_iter().enumerate();
    let ids = ids
        .map(|(index, id)| token_id("input_ids", index, id, "a token id"))
        .collect::<Result<Vec<u32>, _>>()?;
    let mut optional = |key: &str| optional(fields, key, ids.len());
    let given = optional("labels")?;
    let labelled = given.is_some();
    let mut labels = match given {
        Some(labels) => checked_labels(labels)?,
        None => ids.iter().map(|&id| id.into()).collect(),
    };
    for key in MASKS {
        let Some(mask) = optional(key)? else { continue };
        for (index, (label, kept)) in labels.iter_mut().zip(mask).enumerate() {
            match kept {
                0 => *label = IGNORED.into(),
                1 => {}
                other => return Err(value(key, index, other, "0 or 1")),
            }
        }
    }
    let mask = optional("attention_mask")?;
    let positions = optional("position_ids")?;
    let real = mask.as_deref().map_or(0..ids.len(), real_tokens);
    let mut starts: Option<(&str, Vec<usize>)> = None;
    let found = [
        (
            "attention_mask",
            mask.map(|m| numbered(&m, real.clone()))
                .transpose()?
                .flatten(),
        ),
        (
            "position_ids",
            positions.map(|p| restarts(&p, real.clone())).transpose()?,
        ),
        ("seq_lengths", seq_lengths(fields, ids.len(), real.clone())?),
    ];
    for (key, found) in found {
        let Some(found) = found else { continue };
        match &starts {
            Some((other, known)) if *known != found => {
                return Err(RowProblem::Refused {
                    key: KeyPath::name(key),
                    why: format!("says otherwise than `{other}` where sequences begin"),
                });
            }
            _ => starts = Some((key, found)),
        }
    }
    let mut bounds = starts.map_or_else(|| vec![real.start], |(_, starts)| starts);
    bounds.push(real.end);
    let parts = bounds.windows(2).map(|pair| {
        let range = pair[0]..pair[1];
        Tokens {
            ids: ids[range.clone()].to_vec(),
            labels: labels[range.clone()].to_vec(),
            start: range.start,
            labelled,
            columns: None,
        }
    });
    Ok(parts.collect())
}

fn value(key: &str, index: usize, got: i64, expected: &'static str) -> RowProblem {
    RowProblem::Value {
        key: KeyPath::name(key).then(index),
        value: got.to_string(),
        expected,
    }
}

/// Targets are stored as i32.
fn token_id(key: &str, index: usize, id: i64, expected: &'static str) -> Result<u32, RowProblem> {
    let narrow = i32::try_from(id).ok().and_then(|id| u32::try_from(id).ok());
    narrow.ok_or_else(|| value(key, index, id, expected))
}

fn checked_labels(labels: Vec<i64>) -> Result<Vec<i64>, RowProblem> {
    for (index, &label) in labels.iter().enumerate() {
        if label != i64::from(IGNORED) {
            token_id("labels", index, label, "a token id, nor -100 (not trained)")?;
        }
    }
    Ok(labels)
}

fn integers(fields: &mut Fields, key: &str) -> Result<Vec<i64>, RowProblem> {
    let integer = |(index, value): (usize, Value)| {
        let path = KeyPath::name(key).then(index);
        match value {
            Value::Number(number) => number.as_i64().ok_or_else(|| RowProblem::Value {
                key: path,
                value: number.to_string(),
                expected: "a whole number of 64 bits",
            }),
            Value::Bool(bit) => Ok(bit.into()),
            _ => Err(wrong(path, "a whole number", &value)),
        }
    };
    take_list(fields, key)?
        .into_iter()
        .enumerate()
        .map(integer)
        .collect()
}

/// Takes a column with one value per token, if the row has it.
fn optional(fields: &mut Fields, key: &str, len: usize) -> Result<Option<Vec<i64>>, RowProblem> {
    if !fields.contains_key(key) {
        return Ok(None);
    }
    let values = integers(fields, key)?;
    if values.len() != len {
        return Err(RowProblem::Lengths {
            key: KeyPath::name(key),
            got: values.len(),
            expected: len,
        });
    }
    Ok(Some(values))
}

/// Range from the first to the last token that is no padding.
fn real_tokens(mask: &[i64]) -> Range<usize> {
    let start = mask.iter().position(|&m| m != 0).unwrap_or(mask.len());
    let end = mask.iter().rposition(|&m| m != 0).map_or(start, |i| i + 1);
    start..end
}

/// Places where the numbers of a mask grow: 1 for the first sequence, 2 for the second. A mask of
/// ones has no such places.
fn numbered(mask: &[i64], real: Range<usize>) -> Result<Option<Vec<usize>>, RowProblem> {
    let mut starts = vec![real.start];
    let mut number = 1;
    for index in real {
        match mask[index] {
            same if same == number => {}
            next if next == number + 1 && index > starts[0] => {
                number = next;
                starts.push(index);
            }
            other => {
                let expected = "1 as before, one more where another sequence begins, or 0 for \
                                padding before and after all tokens";
                return Err(value("attention_mask", index, other, expected));
            }
        }
    }
    Ok((number > 1).then_some(starts))
}

/// Places where positions start again at 0.
fn restarts(positions: &[i64], real: Range<usize>) -> Result<Vec<usize>, RowProblem> {
    let mut starts = Vec::new();
    let mut next = 0;
    for index in real.clone() {
        match positions[index] {
            0 => {
                starts.push(index);
                next = 1;
            }
            position if position == next && !starts.is_empty() => next += 1,
            other => {
                let expected = "one more than the position before it, or 0 where a sequence begins";
                return Err(value("position_ids", index, other, expected));
            }
        }
    }
    if starts.is_empty() {
        starts.push(real.start);
    }
    Ok(starts)
}

/// Reads the lengths of the sequences in a row.
fn seq_lengths(
    fields: &mut Fields,
    len: usize,
    real: Range<usize>,
) -> Result<Option<Vec<usize>>, RowProblem> {
    if !fields.contains_key("seq_lengths") {
        return Ok(None);
    }
    let lengths = integers(fields, "seq_lengths")?;
    let mut starts = Vec::with_capacity(lengths.len());
    let mut start = real.start;
    for (index, &length) in lengths.iter().enumerate() {
        let fits = usize::try_from(length)
            .ok()
            .filter(|&l| l > 0 && l <= real.end - start);
        let Some(length) = fits else {
            let expected = "a length that is left in `input_ids`";
            return Err(value("seq_lengths", index, length, expected));
        };
        starts.push(start);
        start += length;
    }
    if start != real.end {
        return Err(RowProblem::Refused {
            key: KeyPath::name("seq_lengths"),
            why: format!(
                "the lengths add up to {}, but `input_ids` has {}",
                start - real.start,
                counted(len as u64, "token")
            ),
        });
    }
    if starts.is_empty() {
        starts.push(real.start);
    }
    Ok(Some(starts))
}
