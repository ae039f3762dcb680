//! Decides the layout of the records of a file by its first rows.

use std::path::Path;

use crate::error::DataError;
use crate::options::{DataOptions, Format, OnBadRow};
use crate::record;
use crate::source::RawRow;

/// Number of rows that decide the format of a file.
pub(crate) const DETECTION_ROWS: usize = 16;

/// Detects the format by the keys with a value in the first rows or, failing that, by all their
/// keys.
pub(crate) fn detect(
    path: &Path,
    chunk: &[RawRow],
    options: &DataOptions,
) -> Result<Format, DataError> {
    let mut full: Vec<String> = Vec::new();
    let mut all: Vec<String> = Vec::new();
    let mut refused = None;
    let (mut good, mut judged) = (0, false);
    let mut unreadable = None;
    for row in chunk {
        match row.parse(path) {
            Ok(fields) => {
                let fields = options.columns.apply(fields.into_owned()).fields;
                for (key, value) in &fields {
                    if !all.contains(key) {
                        all.push(key.clone());
                    }
                    if !record::is_empty(value) && !full.contains(key) {
                        full.push(key.clone());
                    }
                }
                if refused.is_none() {
                    let problem = record::refused(&fields, Format::Auto);
                    let problem = problem.map(|problem| options.columns.in_file(problem));
                    refused = problem.map(|problem| row.bad(path, problem));
                }
                judged |= record::is_judged(&fields);
                good += 1;
            }
            Err(bad) if options.on_bad_row == OnBadRow::Error => {
                return Err(bad.into());
            }
            Err(bad) => drop(unreadable.get_or_insert(bad)),
        }
        if good == DETECTION_ROWS {
            break;
        }
    }
    if let Some(first) = unreadable.filter(|_| good == 0) {
        return Err(DataError::AllBad {
            first,
            rows: chunk.len() as u64,
        });
    }
    let by = |keys: &[String]| {
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        record::detect(&keys, judged)
    };
    match (by(&full).or_else(|| by(&all)), refused) {
        (Some(format), _) => Ok(format),
        (None, Some(bad)) => Err(bad.into()),
        (None, None) => Err(DataError::UnknownFormat {
            path: path.to_owned(),
            saw: all,
        }),
    }
}
